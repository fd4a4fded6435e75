"""The door to nftables: libnftables by ctypes, JSON in and out (libnftables-json(5)).

One document is one transaction: all of it takes effect or nothing. It acts on the network namespace of the calling
thread and takes about a third of a millisecond, where an ``nft`` process takes twenty.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from warren.errors import OperationFailed

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON

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


class LibNft:
    """The kernel's ruleset. Raises OperationFailed when the library is not installed."""

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

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        request = json.dumps({"nftables": list(document)}).encode()
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
            errors = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
        finally:
            library.nft_ctx_free(context)
        if failed:
            raise OperationFailed(f"nftables refuses the rules: {_reason(errors)}")
        answer: list[dict[str, Any]] = json.loads(output)["nftables"] if output.strip() else []
        return answer

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
