"""Finds comparisons of secret bytes that take as long as the bytes agree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# Whole words of a name, so that `macro` and `message` are innocent.
_SECRET_BYTES = re.compile(r"(?:^|_)(?:mac[12]?|tag|secret|cookie)(?:_|$)")
# Values of these names compare themselves in constant time; the bytes taken out of them do not.
_KEY_VALUE = re.compile(r"(?:^|_)(?:psk|preshared|private)(?:_|$)")
# Names that hold a secret word but say something public about it: a length, an index, a moment.
_PUBLIC_WORD = re.compile(r"(?:^|_)(?:bytes|length|size|at|offset|end|start|count|index|is)(?:_|$)")


def leaky_comparisons(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each ``==``, ``!=`` or ``in`` with secret bytes on one side (comparing with None is no such)."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops):
            continue
        if any(_is_secret(side, _SECRET_BYTES) for side in (node.left, *node.comparators)):
            yield node.lineno, ast.unparse(node)


def _is_secret(node: ast.expr, words: re.Pattern[str]) -> bool:
    """Whether the name that ``node`` ends in tells of a secret; a slice of a secret, or its ``.raw``, is one too."""
    match node:
        case ast.Attribute(value=value, attr="raw" | "hex" | "base64"):
            return _is_secret(value, _SECRET_BYTES) or _is_secret(value, _KEY_VALUE)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _tells(name, words)
        case ast.Subscript(value=value) | ast.Call(func=ast.Name(id="bytes" | "memoryview"), args=[value]):
            return _is_secret(value, words)
        case _:
            return False


def _tells(name: str, words: re.Pattern[str]) -> bool:
    if name.isupper():  # a constant of the protocol: COOKIE_REPLY
        return False
    return bool(words.search(name.lower())) and not _PUBLIC_WORD.search(name.lower())
