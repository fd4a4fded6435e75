"""From a config and what the data plane says of itself to the one change that makes them agree (``wg syncconf``);
pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from warren.identity.keys import PresharedKey, PublicKey
from warren.model.tunnel import IPNetwork, PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus
from warren.tunnel.config import PeerConfig, TunnelConfig

_NO_KEY = PresharedKey(bytes(32))


def difference(
    config: TunnelConfig, status: TunnelStatus, fwmark: int, endpoints: Mapping[PublicKey, TransportAddress]
) -> TunnelChange | None:
    """The change that turns ``status`` into ``config``; None when they agree already.

    Peers that did not change are not mentioned, so that their sessions live on. ``endpoints`` are the addresses to set:
    a peer that is not in it keeps the address it was last heard from. ``fwmark`` is the mark in force, 0 for none.
    """
    own = None if status.private_key == config.private_key else config.private_key
    port = None if config.listen_port in (0, status.listen_port) else config.listen_port
    mark = None if fwmark == status.fwmark else fwmark
    peers = tuple(_peers(config, status, endpoints))
    if own is None and port is None and mark is None and not peers:
        return None
    return TunnelChange(own, port, mark, peers=peers)


def _peers(
    config: TunnelConfig, status: TunnelStatus, endpoints: Mapping[PublicKey, TransportAddress]
) -> Iterator[PeerChange]:
    present = {peer.public_key: peer for peer in status.peers}
    wanted = {peer.public_key for peer in config.peers}
    for key in present:
        if key not in wanted:
            yield PeerChange(key, remove=True)
    owners = owners_of(config)
    for peer in config.peers:
        allowed = tuple(network for network in peer.allowed_ips if owners[network] == peer.public_key)
        old = present.get(peer.public_key)
        change = _new(peer, allowed, endpoints) if old is None else _changed(peer, old, allowed, endpoints)
        if change is not None:
            yield change


def owners_of(config: TunnelConfig) -> dict[IPNetwork, PublicKey]:
    """Which peer gets each network: the last that names it, as with ``wg``."""
    return {network: peer.public_key for peer in config.peers for network in peer.allowed_ips}


def _new(
    peer: PeerConfig, allowed: tuple[IPNetwork, ...], endpoints: Mapping[PublicKey, TransportAddress]
) -> PeerChange:
    return PeerChange(
        peer.public_key,
        preshared_key=peer.preshared_key,
        endpoint=endpoints.get(peer.public_key),
        persistent_keepalive_s=peer.persistent_keepalive_s or None,
        allowed_ips=allowed,
    )


def _changed(
    peer: PeerConfig,
    old: PeerStatus,
    allowed: tuple[IPNetwork, ...],
    endpoints: Mapping[PublicKey, TransportAddress],
) -> PeerChange | None:
    old_key = None if old.preshared_key is None or old.preshared_key.is_zero else old.preshared_key
    same_networks = set(allowed) == set(old.allowed_ips)
    endpoint = endpoints.get(peer.public_key)
    keepalive = peer.persistent_keepalive_s
    change = PeerChange(
        peer.public_key,
        preshared_key=None if peer.preshared_key == old_key else peer.preshared_key or _NO_KEY,
        endpoint=None if endpoint == old.endpoint else endpoint,
        persistent_keepalive_s=None if keepalive == old.persistent_keepalive_s else keepalive,
        replace_allowed_ips=not same_networks,
        allowed_ips=() if same_networks else allowed,
    )
    return None if change == PeerChange(peer.public_key) else change
