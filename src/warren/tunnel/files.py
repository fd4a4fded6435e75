"""Config files on disk: which file and interface are meant, reading with limits, writing so that no crash leaves half
a file.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from warren import log
from warren.errors import OperationFailed, UsageError
from warren.tunnel import fields
from warren.tunnel.config import TunnelConfig, parse

CONFIG_DIRECTORY = Path("/etc/wireguard")
FILE_BYTES_MAX = 32 << 20
"""100,000 peers in about 300 bytes each; anything larger is not a config."""

_NAME = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")  # wg-quick's
_RESERVED = frozenset({".", "..", "all", "default", "lo"})


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config and the interface it is for."""

    path: Path
    interface: str


@dataclass(frozen=True, slots=True)
class Loaded:
    config: TunnelConfig
    warnings: tuple[str, ...]
    """About the file's contents and its permissions."""


def locate(argument: str, name: str | None, directory: Path = CONFIG_DIRECTORY) -> ConfigFile:
    """What ``CONFIG`` and ``--name`` of the command line mean.

    A bare name stands for a file in ``directory``, as with wg-quick; anything with a slash or ending in ``.conf`` is
    a path. Raises UsageError when no usable interface name results.
    """
    if _NAME.fullmatch(argument) and not argument.endswith(".conf"):
        path, stem = directory / f"{argument}.conf", argument
    else:
        path = Path(argument)
        stem = path.name.removesuffix(".conf")
    interface = stem if name is None else name
    if not _NAME.fullmatch(interface) or interface in _RESERVED:
        hint = "use another --name" if name is not None else "rename the file or give --name IF"
        rule = "1 to 15 of A-Z a-z 0-9 _ = + . -, none that Linux reserves"
        raise UsageError(f"{fields.shown(interface)} cannot name an interface ({rule}); {hint}")
    return ConfigFile(path, interface)


def load(path: Path) -> Loaded:
    """Read and parse a config; its secrets are hidden from the log from then on.

    Raises OperationFailed when it cannot be read, UsageError when it is malformed.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise OperationFailed(
            f"{path} does not exist; give the path of a wg-quick config, or NAME for {CONFIG_DIRECTORY}/NAME.conf"
        ) from None
    except IsADirectoryError:
        raise OperationFailed(f"{path} is a directory; give the path of a wg-quick config") from None
    except PermissionError:
        raise OperationFailed(f"{path} may not be read by this user; run as its owner or as root") from None
    except OSError as error:
        raise OperationFailed(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{path}: the file is larger than {FILE_BYTES_MAX >> 20} MiB; that is not a config")
    config = parse(_decode(data, path), str(path))
    for key in (config.private_key, *(peer.preshared_key for peer in config.peers)):
        if key is not None:
            log.hide(key.base64, key.hex)
    warnings = config.warnings
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        warnings = (f"{path} holds a private key and is open to other users; run `chmod 600 {path}`", *warnings)
    return Loaded(config, warnings)


def _decode(data: bytes, path: Path) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError(f"{path}: the file is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: the file is not UTF-8 text here; save it as UTF-8") from None
