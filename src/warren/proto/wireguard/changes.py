"""Whether a change can happen as a whole: decided before anything of it is done, so that a refused one did nothing."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from warren.errors import OperationFailed
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange, Way
from warren.proto.turn.channel import CHANNEL_MAX, CHANNEL_MIN
from warren.proto.wireguard.addresses import pack_local, socket_address

PEERS_MAX = 1 << 16
"""As the reference implementations: indices must stay sparse and status answers bounded."""


def check(change: TunnelChange, peers: Iterable[bytes], own: bytes | None) -> None:
    """Play ``change`` through on the keys of the ``peers`` there are and our ``own``.

    Raises OperationFailed caused by an OSError, whose errno is the answer on the control socket: ENOENT (nobody has
    the key to be renamed from), EEXIST (the new key is a peer's already, or ours), EINVAL (to be renamed and removed,
    or a way that no endpoint can have), EUSERS (too many peers).
    """
    keys = set() if change.replace_peers else set(peers)
    if change.private_key is not None:
        own = None if change.private_key.is_zero else change.private_key.public_key().raw
        keys.discard(own or b"")
    for peer in change.peers:
        key = peer.public_key.raw
        if peer.way is not None:
            _check_way(peer.way, peer.endpoint)
        if peer.renamed_from is not None:
            _rename(keys, peer, own)
        elif peer.remove:
            keys.discard(key)
        elif not peer.update_only and key != own:
            keys.add(key)
    if len(keys) > PEERS_MAX:
        raise _refused(errno.EUSERS, f"a tunnel has at most {PEERS_MAX} peers: spread them over several")


def _rename(keys: set[bytes], peer: PeerChange, own: bytes | None) -> None:
    if peer.renamed_from is None:
        return
    if peer.remove:
        raise _refused(errno.EINVAL, f"peer {peer.renamed_from.short} is to be renamed and removed: decide for one")
    if peer.renamed_from.raw not in keys:
        if peer.update_only:
            return
        raise _refused(errno.ENOENT, f"no peer has the key {peer.renamed_from.short}: name one that is there")
    if peer.public_key.raw in keys or peer.public_key.raw == own:
        raise _refused(
            errno.EEXIST,
            f"peer {peer.renamed_from.short} cannot get the key {peer.public_key.short}: it is in use, remove it first",
        )
    keys.remove(peer.renamed_from.raw)
    keys.add(peer.public_key.raw)


def _check_way(way: Way, endpoint: TransportAddress | None) -> None:
    if endpoint is None:
        raise _refused(errno.EINVAL, "a way leads to an endpoint: name both")
    try:
        pack_local(way, socket_address(endpoint)[0])
    except ValueError as error:
        raise _refused(errno.EINVAL, f"{endpoint} has no way from {way.source}: {error}") from None
    if not (way.channel == 0 or CHANNEL_MIN <= way.channel <= CHANNEL_MAX):
        raise _refused(errno.EINVAL, f"{way.channel:#x} is no channel of a TURN server: they are 0x4000 to 0x4fff")


def _refused(number: int, sentence: str) -> OperationFailed:
    error = OperationFailed(sentence)
    error.__cause__ = OSError(number, sentence)
    return error
