"""The secrets that two members share without having exchanged any: from their WireGuard keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from warren.identity.keys import PrivateKey, PublicKey
from warren.identity.signing import SigningKey

_INFO = b"warren check 1"
_MAPPING_INFO = b"warren port mapping 1"
CHECK_KEY_BYTES = SECRET_BYTES = 32


def check_key(own: PrivateKey, peer: PublicKey, network: bytes) -> bytes | None:
    """The key that connectivity checks between the holders of ``own`` and ``peer`` are authenticated by in the network
    with the authority key ``network``: HKDF-SHA256 (RFC 5869) over their X25519 secret. About 100 µs.

    None for a public key of low order (RFC 7748 §6.1), with which nobody shares a secret.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(own.raw).exchange(X25519PublicKey.from_public_bytes(peer.raw))
    except ValueError:
        return None
    return HKDF(SHA256(), CHECK_KEY_BYTES, salt=None, info=_INFO + network).derive(secret)


def mapping_secret(key: SigningKey, network: bytes) -> bytes:
    """What the nonces of the node with ``key`` follow from when it asks gateways for ports (RFC 6887 §11.2): known to
    nobody else, and the same after a crash, so that a gateway lets it have its mapping back.
    """
    return HKDF(SHA256(), SECRET_BYTES, salt=None, info=_MAPPING_INFO + network).derive(key.seed)


class CheckKeys:
    """The check keys of one node with its peers, each made once, until :meth:`keep` forgets those of others."""

    def __init__(self, network: bytes) -> None:
        self._network = network
        self._known: dict[tuple[PrivateKey, PublicKey], bytes | None] = {}

    def of(self, own: Sequence[PrivateKey], peer: Sequence[PublicKey]) -> tuple[bytes, ...]:
        """Those between any of this node's keys and any of a peer's; that of the first ones comes first."""
        found = []
        for mine in own:
            for theirs in peer:
                pair = mine, theirs
                if pair not in self._known:
                    self._known[pair] = check_key(mine, theirs, self._network)
                key = self._known[pair]
                if key is not None:
                    found.append(key)
        return tuple(found)

    def keep(self, own: Iterable[PrivateKey], peers: Iterable[PublicKey]) -> None:
        """Forget all but the pairs of these."""
        mine, theirs = set(own), set(peers)
        self._known = {pair: key for pair, key in self._known.items() if pair[0] in mine and pair[1] in theirs}
