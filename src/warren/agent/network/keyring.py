"""A node's WireGuard keys in one network, and when the next one's turn is."""

from __future__ import annotations

from collections.abc import Callable

from warren import log
from warren.agent.config import AgentConfig
from warren.agent.network import rotation
from warren.identity.keys import PrivateKey, PublicKey
from warren.identity.signing import VerifyKey
from warren.identity.store import KeyStore, WireGuardKeys
from warren.model.documents import NodeRecord

_log = log.get("agent")


class Keyring:
    """Made and read when first asked for. ``network_s`` gives the time in the network. Errors: OperationFailed when
    the disk does not take a key; the keys are then those of before.
    """

    def __init__(self, network: VerifyKey, store: KeyStore, network_s: Callable[[], float]) -> None:
        self._network = network
        self._store = store
        self._network_s = network_s
        self._keys: WireGuardKeys | None = None
        self._public: tuple[PublicKey, PublicKey | None] | None = None

    def _read(self) -> WireGuardKeys:
        if self._keys is None:
            return self._keep(self._store.wireguard_keys(self._network, self._network_s()))
        return self._keys

    def _keep(self, keys: WireGuardKeys) -> WireGuardKeys:
        self._keys, self._public = keys, None
        for key in (keys.current, keys.next):
            if key is not None:
                log.hide(key.base64, key.hex)
        return keys

    @property
    def private(self) -> PrivateKey:
        return self._read().current

    @property
    def privates(self) -> tuple[PrivateKey, ...]:
        """The present one, and the next one if there is one."""
        keys = self._read()
        return (keys.current,) if keys.next is None else (keys.current, keys.next)

    @property
    def public(self) -> PublicKey:
        return self._pair()[0]

    @property
    def next_public(self) -> PublicKey | None:
        return self._pair()[1]

    def _pair(self) -> tuple[PublicKey, PublicKey | None]:
        if self._public is None:
            keys = self._read()
            self._public = keys.current.public_key(), None if keys.next is None else keys.next.public_key()
        return self._public

    def own(self) -> list[PublicKey]:
        """The keys that are this node's and nobody else's."""
        return [key for key in self._pair() if key is not None]

    def known(self, record: NodeRecord | None) -> list[PublicKey]:
        """Also those that ``record``, the last one of this node in the map, speaks of: an agent that was killed while
        it changed the key may find the one before in use.
        """
        keys = [] if record is None else [record.wireguard_key, record.next_wireguard_key]
        return [*self.own(), *(PublicKey(key) for key in keys if key is not None)]

    def turn(self, config: AgentConfig, name: str, *, told: bool) -> bool:
        """Announce or take the next key when its time has come; returns whether something changed. ``told``: all have
        been told of the one that is announced.
        """
        step = rotation.step(self._standing(told=told), config.rotate_s, config.announce_s, self._network_s())
        if step == "keep":
            return False
        if step == "announce":
            self._keep(self._store.prepare_next(self._network, self._network_s()))
            _log.info("%s: the next WireGuard key is announced", name)
        else:
            self._keep(self._store.use_next(self._network, self._network_s()))
            _log.info("%s: a fresh WireGuard key is in use", name)
        return True

    def replace(self, name: str) -> None:
        """Use a fresh key at once: another member has one of these."""
        self._keep(self._store.replace_wireguard(self._network, self._network_s()))
        _log.warning("%s: another member has this node's WireGuard key too; a fresh one is in use", name)

    def next_turn_at(self, config: AgentConfig) -> float | None:
        """In network time; None: never."""
        return rotation.next_step_at(self._standing(told=False), config.rotate_s, config.announce_s)

    def _standing(self, *, told: bool) -> rotation.Standing:
        keys, now_s = self._read(), self._network_s()
        # A time that has not come yet was noted while a clock stood wrong.
        return rotation.Standing(min(keys.current_since_s, now_s), min(keys.next_since_s or 0.0, now_s), told)
