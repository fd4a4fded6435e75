"""The door to nftables: libnftables by ctypes, JSON in and out (libnftables-json(5)).

One document is one transaction: all of it takes effect or nothing. It acts on the network namespace of the calling
thread and takes about a third of a millisecond, where an ``nft`` process takes twenty.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

from warren.errors import OperationFailed

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
_SELECTABLE: Final = 1024
"""FD_SETSIZE: libnftables waits by select(2), and a process that does so with a higher descriptor is aborted."""

Command = Mapping[str, Any]
"""One element of a document, e.g. ``{"add": {"table": {"family": "ip", "name": "warren-home"}}}``."""


class Table(NamedTuple):
    family: str
    name: str


class Nft(Protocol):
    """Errors: OperationFailed with nftables' own reason; nothing of the document has then taken effect."""

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        """Carry out ``document`` as one transaction; the answer is what its ``list`` commands list."""

    def tables(self) -> frozenset[Table]:
        """The names of all tables."""


class _LowPlace:
    """A descriptor below select's limit, held while nobody needs it so that there is one in a process of thousands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[int] = []
        weakref.finalize(self, _close_all, self._held)
        self._hold()

    @contextmanager
    def free(self) -> Iterator[None]:
        """Whatever is opened first in this block gets it. Raises OperationFailed when there is none."""
        with self._lock:
            if not self._held:
                self._hold()
            if not self._held:
                raise OperationFailed(f"nftables cannot be reached: the first {_SELECTABLE} descriptors are all in use")
            os.close(self._held.pop())
            try:
                yield
            finally:
                self._hold()

    def _hold(self) -> None:
        try:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # none is left at all: asked for again when one is needed
        if descriptor < _SELECTABLE:
            self._held.append(descriptor)
        else:
            os.close(descriptor)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


class LibNft:
    """The kernel's ruleset. Raises OperationFailed when the library is not installed.

    Threads may share one: documents are carried out one after another.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise OperationFailed(f"{_LIBRARY} is missing; install it (Debian: apt install libnftables1)") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        self._library = library
        self._place = _LowPlace()

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        request = json.dumps({"nftables": list(document)}).encode()
        with self._place.free():
            failed, output, errors = self._carry_out(request)
        if failed:
            raise OperationFailed(f"nftables refuses the rules: {_reason(errors)}")
        answer: list[dict[str, Any]] = json.loads(output)["nftables"] if output.strip() else []
        return answer

    def _carry_out(self, request: bytes) -> tuple[bool, bytes, str]:
        """Whether it failed, what it listed, and libnftables' report."""
        library = self._library
        # A context of its own for each document: it caches the ruleset of the namespace it was first used in.
        context = library.nft_ctx_new(0)
        if not context:
            raise OperationFailed("nftables cannot be reached: out of memory")
        try:
            library.nft_ctx_output_set_flags(context, _OUTPUT_JSON)
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            failed = library.nft_run_cmd_from_buffer(context, request)
            output = library.nft_ctx_get_output_buffer(context) or b""
            errors = library.nft_ctx_get_error_buffer(context) or b""
        finally:
            library.nft_ctx_free(context)
        return bool(failed), output, errors.decode(errors="replace")

    def tables(self) -> frozenset[Table]:
        answer = self.run([{"list": {"tables": None}}])
        listed = [element["table"] for element in answer if "table" in element]
        return frozenset(Table(table["family"], table["name"]) for table in listed)


def _reason(errors: str) -> str:
    """The cause out of libnftables' report, which also quotes the rules and points at them."""
    lines = [line.partition("Error: ")[2] for line in errors.splitlines() if "Error: " in line]
    if not lines:
        return "it gives no reason"
    if "Operation not permitted" in lines[0]:
        return "not permitted; run as root or with CAP_NET_ADMIN"
    return lines[0]


class MemoryNft:
    """The twin of :class:`LibNft` for tests: it keeps the commands of each table and knows no more of rules."""

    def __init__(self) -> None:
        self.contents: dict[Table, list[Command]] = {}

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        contents = {table: list(commands) for table, commands in self.contents.items()}
        answer: list[dict[str, Any]] = []
        for command in document:
            ((verb, element),) = command.items()
            ((kind, value),) = element.items()
            if verb == "list" and value is None:
                answer += [{"table": table._asdict()} for table in contents]
                continue
            table = Table(value["family"], value["name"] if kind == "table" else value["table"])
            if (verb, kind) == ("add", "table"):
                contents.setdefault(table, [])
            elif table not in contents:
                raise OperationFailed("nftables refuses the rules: No such file or directory")
            elif (verb, kind) == ("list", "table"):
                answer += [{"table": table._asdict()}, *(dict(command) for command in contents[table])]
            elif (verb, kind) == ("delete", "table"):
                del contents[table]
            else:
                contents[table].append(command)
        self.contents = contents
        return answer

    def tables(self) -> frozenset[Table]:
        return frozenset(self.contents)
