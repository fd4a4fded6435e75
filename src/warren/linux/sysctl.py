"""The door to sysctl(8) settings of this network namespace. Names are paths below ``/proc/sys``, since interfaces may
have dots.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from warren.errors import OperationFailed


class Sysctls(Protocol):
    """Errors: OperationFailed when a setting cannot be changed."""

    def get(self, name: str) -> str | None:
        """The value of ``net/ipv4/ip_forward``; None when this kernel has no such setting."""

    def set(self, name: str, value: str) -> None: ...


class ProcSysctls:
    """The running kernel's."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def get(self, name: str) -> str | None:
        try:
            return (self._root / name).read_text().strip()
        except OSError:
            return None

    def set(self, name: str, value: str) -> None:
        try:
            (self._root / name).write_text(value)
        except OSError as error:
            reason = error.strerror
            raise OperationFailed(f"sysctl {name.replace('/', '.')}={value} cannot be set: {reason}") from None


class MemorySysctls:
    """The twin for tests: a dictionary. A setting that was never there cannot be set, as in ``/proc``."""

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.values = dict(values or {})

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def set(self, name: str, value: str) -> None:
        if name not in self.values:
            raise OperationFailed(f"sysctl {name.replace('/', '.')}={value} cannot be set: No such file or directory")
        self.values[name] = value
