"""A running tunnel as a wg-quick file (``SaveConfig = true``); pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from warren.identity.keys import PublicKey
from warren.model.tunnel import PeerStatus, TransportAddress, TunnelStatus
from warren.tunnel.config import PeerConfig, TunnelConfig
from warren.tunnel.fields import TABLE_AUTO, IPInterface

IsFromName = Callable[[PublicKey, TransportAddress | None], bool]
"""Whether an address is one that the peer's configured endpoint stands for, so that the name is what to keep."""


def render(
    config: TunnelConfig,
    status: TunnelStatus,
    addresses: Sequence[IPInterface],
    mtu: int,
    is_from_name: IsFromName,
) -> str:
    """The text of a config that brings up the tunnel as it is now: what ``wg`` or ``ip`` changed is kept.

    ``addresses`` and ``mtu`` (bytes) are the interface's. The text holds the private key.
    """
    return "\n".join([*_interface(config, status, addresses, mtu), *_peers(config, status, is_from_name), ""])


def _interface(config: TunnelConfig, status: TunnelStatus, addresses: Sequence[IPInterface], mtu: int) -> Iterator[str]:
    yield "[Interface]"
    yield from (f"Address = {address}" for address in addresses)
    yield from (f"DNS = {entry}" for entry in (*config.dns_servers, *config.dns_search))
    if config.mtu is not None:
        yield f"MTU = {mtu}"
    if config.table != TABLE_AUTO:
        yield f"Table = {config.table}"
    yield "SaveConfig = true"
    hooks = {
        "PreUp": config.pre_up,
        "PostUp": config.post_up,
        "PreDown": config.pre_down,
        "PostDown": config.post_down,
    }
    for name, commands in hooks.items():
        yield from (f"{name} = {command}" for command in commands)
    if status.listen_port:
        yield f"ListenPort = {status.listen_port}"
    if config.fwmark is not None:  # a mark that the default route chose is chosen again
        yield f"FwMark = {status.fwmark:#x}" if status.fwmark else "FwMark = off"
    key = status.private_key or config.private_key
    yield f"PrivateKey = {key.base64}"


def _peers(config: TunnelConfig, status: TunnelStatus, is_from_name: IsFromName) -> Iterator[str]:
    configured = {peer.public_key: peer for peer in config.peers}
    for peer in status.peers:
        yield ""
        yield "[Peer]"
        yield from _peer(peer, configured.get(peer.public_key), is_from_name)


def _peer(peer: PeerStatus, configured: PeerConfig | None, is_from_name: IsFromName) -> Iterator[str]:
    yield f"PublicKey = {peer.public_key.base64}"
    if peer.preshared_key is not None and not peer.preshared_key.is_zero:
        yield f"PresharedKey = {peer.preshared_key.base64}"
    if peer.allowed_ips:
        yield f"AllowedIPs = {', '.join(str(network) for network in peer.allowed_ips)}"
    wanted = configured.endpoint if configured is not None else None
    if wanted is not None and (peer.endpoint is None or is_from_name(peer.public_key, peer.endpoint)):
        yield f"Endpoint = {wanted}"
    elif peer.endpoint is not None:
        yield f"Endpoint = {peer.endpoint}"
    if peer.persistent_keepalive_s:
        yield f"PersistentKeepalive = {peer.persistent_keepalive_s}"
