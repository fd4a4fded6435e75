"""The standard wg-quick file as a value: ``wg-quick(8)`` and ``wg(8)``, section CONFIGURATION FILE FORMAT.

:func:`parse` is pure: text in, :class:`TunnelConfig` out, or :class:`~warren.errors.UsageError` naming file, line,
key and the accepted form. No error quotes a key. :mod:`warren.tunnel.files` reads and writes the files themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Interface
from typing import Any, Final

from warren.errors import UsageError
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import IPAddress, IPNetwork
from warren.tunnel import fields
from warren.tunnel.fields import Endpoint, IPInterface


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One ``[Peer]`` section."""

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    """None: the pair has none (an all-zero key in the file means the same)."""
    allowed_ips: tuple[IPNetwork, ...] = ()
    endpoint: Endpoint | None = None
    persistent_keepalive_s: int = 0
    """0: off."""


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """One file, checked: it contradicts itself nowhere."""

    private_key: PrivateKey
    addresses: tuple[IPInterface, ...] = ()
    listen_port: int = 0
    """0: the kernel chooses."""
    fwmark: int | None = None
    """None: not given, so that a default route may choose one; 0: ``off``."""
    mtu: int | None = None
    """None: derived from the path to the peers."""
    table: int | str = fields.TABLE_AUTO
    """A number, a name of ``/etc/iproute2/rt_tables``, ``auto`` or ``off``."""
    dns_servers: tuple[IPAddress, ...] = ()
    dns_search: tuple[str, ...] = ()
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    peers: tuple[PeerConfig, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Sentences about what the file says and probably does not mean."""


@dataclass(frozen=True, slots=True)
class _Key:
    """How one key of a section is read: into which field, and whether it may be given several times or as a list."""

    name: str
    """As the manual spells it."""
    field: str
    parse: Callable[[str], Any]
    many: bool = False
    listed: bool = False
    """The value is a list separated by commas; implies ``many``."""


def _table(*keys: _Key) -> dict[str, _Key]:
    return {key.name.lower(): key for key in keys}


_SECTIONS: Final = {
    "interface": _table(
        _Key("PrivateKey", "private_key", fields.parse_private_key),
        _Key("ListenPort", "listen_port", fields.parse_port),
        _Key("FwMark", "fwmark", fields.parse_fwmark),
        _Key("Address", "addresses", fields.parse_interface_address, listed=True),
        _Key("MTU", "mtu", fields.parse_mtu),
        _Key("Table", "table", fields.parse_table),
        _Key("DNS", "dns", fields.parse_dns, listed=True),
        _Key("PreUp", "pre_up", str, many=True),
        _Key("PostUp", "post_up", str, many=True),
        _Key("PreDown", "pre_down", str, many=True),
        _Key("PostDown", "post_down", str, many=True),
        _Key("SaveConfig", "save_config", fields.parse_bool),
    ),
    "peer": _table(
        _Key("PublicKey", "public_key", fields.parse_public_key),
        _Key("PresharedKey", "preshared_key", fields.parse_preshared_key),
        _Key("AllowedIPs", "allowed_ips", fields.parse_allowed_ip, listed=True),
        _Key("Endpoint", "endpoint", fields.parse_endpoint),
        _Key("PersistentKeepalive", "persistent_keepalive_s", fields.parse_keepalive),
    ),
}
_TITLES: Final = {"interface": "[Interface]", "peer": "[Peer]"}


class _Section:
    """One section while it is read: its values so far, and the line each key was first given on."""

    def __init__(self, kind: str, line: int) -> None:
        self.kind = kind
        self.line = line
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}

    def set(self, key: _Key, text: str, line: int) -> None:
        """Raises ValueError with the rest of a sentence."""
        if not text and not (key.many or key.listed):
            raise ValueError("has no value")
        if key.listed:
            parsed = tuple(key.parse(entry) for entry in fields.split_list(text))
        else:
            parsed = (key.parse(text),) if text else ()
        if key.many or key.listed:
            self.values[key.field] = (*self.values.get(key.field, ()), *parsed)
        elif key.field in self.values:
            raise ValueError(f"is given twice (first on line {self.lines[key.field]}); keep one")
        else:
            self.values[key.field] = parsed[0]
        self.lines.setdefault(key.field, line)


def parse(text: str, file: str) -> TunnelConfig:
    """Parse the text of a config; ``file`` is how errors and warnings name it. Raises UsageError and nothing else."""
    interface, peers = _read_sections(text, file)
    if interface is None:
        raise UsageError(f"{file}: there is no [Interface] section; a config begins with one")
    if "private_key" not in interface.values:
        raise UsageError(f"{file}:{interface.line}: PrivateKey is missing from [Interface]; make one with `wg genkey`")
    values = interface.values
    dns = values.pop("dns", ())
    config = TunnelConfig(
        **values,
        dns_servers=tuple(entry for entry in dns if not isinstance(entry, str)),
        dns_search=tuple(entry for entry in dns if isinstance(entry, str)),
        peers=tuple(_peers(peers, file)),
    )
    _check_mtu(config, interface, file)
    return replace(config, warnings=tuple(_warnings(config, peers, file)))


def _read_sections(text: str, file: str) -> tuple[_Section | None, list[_Section]]:
    """The [Interface] sections as one, as wg-quick reads them, and each [Peer] section."""
    interface: _Section | None = None
    peers: list[_Section] = []
    current: _Section | None = None
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff")), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            kind = line.strip("[] \t").lower()
            if kind not in _SECTIONS or not line.endswith("]"):
                raise UsageError(f"{file}:{number}: {fields.shown(line)} is not a section; write [Interface] or [Peer]")
            if kind == "interface":
                current = interface = interface or _Section(kind, number)
            else:
                current = _Section(kind, number)
                peers.append(current)
            continue
        _read_line(line, number, current, file)
    return interface, peers


def _read_line(line: str, number: int, section: _Section | None, file: str) -> None:
    name, equals, value = (part.strip() for part in line.partition("="))
    if section is None:
        raise UsageError(f"{file}:{number}: a key stands before any section; begin with [Interface]")
    if not equals:
        raise UsageError(f"{file}:{number}: the line is not a setting; write it like Key = value")
    key = _SECTIONS[section.kind].get(name.lower())
    if key is None:
        raise UsageError(f"{file}:{number}: {_unknown(name, section.kind)}")
    try:
        section.set(key, value, number)
    except ValueError as error:
        raise UsageError(f"{file}:{number}: {key.name}: {error}") from None


def _unknown(name: str, kind: str) -> str:
    for other, keys in _SECTIONS.items():
        if name.lower() in keys:
            return f"{keys[name.lower()].name} belongs in {_TITLES[other]}, not in {_TITLES[kind]}"
    known = ", ".join(key.name for key in _SECTIONS[kind].values())
    # Only what looks like a word is quoted: a line broken in two may hold half a key.
    word = f'"{name}"' if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,24}", name) else "this"
    return f"{word} is not a key of {_TITLES[kind]}; it takes {known}"


def _peers(sections: list[_Section], file: str) -> Iterator[PeerConfig]:
    seen: dict[PublicKey, int] = {}
    for section in sections:
        values = dict(section.values)
        key = values.get("public_key")
        if key is None:
            raise UsageError(
                f"{file}:{section.line}: PublicKey is missing from this [Peer]; the peer prints it with `wg pubkey`"
            )
        if key in seen:
            where = f"{file}:{section.lines['public_key']}"
            raise UsageError(
                f"{where}: PublicKey: the peer of line {seen[key]} is given again; make it one [Peer] section"
            )
        seen[key] = section.line
        preshared = values.pop("preshared_key", None)
        if preshared is not None and not preshared.is_zero:
            values["preshared_key"] = preshared
        values["allowed_ips"] = tuple(dict.fromkeys(values.get("allowed_ips", ())))
        yield PeerConfig(**values)


def _check_mtu(config: TunnelConfig, interface: _Section, file: str) -> None:
    if config.mtu is None or config.mtu >= fields.IPV6_MTU_MIN:
        return
    for address in config.addresses:
        if isinstance(address, IPv6Interface):
            least = f"IPv6 needs at least {fields.IPV6_MTU_MIN}"
            raise UsageError(f"{file}:{interface.lines['mtu']}: MTU: {config.mtu} is too small for {address}; {least}")


def _warnings(config: TunnelConfig, sections: list[_Section], file: str) -> Iterator[str]:
    owner: dict[IPNetwork, PublicKey] = {}
    own = config.private_key.public_key()
    for peer, section in zip(config.peers, sections, strict=True):
        if peer.public_key == own:
            yield f"{file}:{section.line}: this [Peer] has our own PublicKey; no traffic will pass to it"
        for network in peer.allowed_ips:
            if network in owner:
                where = f"{file}:{section.lines['allowed_ips']}: AllowedIPs"
                yield f"{where}: {network} is also at {owner[network].short}; {peer.public_key.short} gets it"
            owner[network] = peer.public_key
    if config.dns_search and not config.dns_servers:
        yield f"{file}: DNS names search domains but no server; they are not used"
