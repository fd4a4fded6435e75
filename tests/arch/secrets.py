"""Finds comparisons of secret bytes that take as long as the bytes agree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# Whole words of a name, so that `macro` and `message` are innocent.
_SECRET_WORD = re.compile(r"(?:^|_)(?:mac1?2?|tag|psk|preshared|private|secret|cookie|digest)(?:_|$)")
# Names that hold a secret word but say something public about it: a length, an index, a type.
_PUBLIC_WORD = re.compile(r"(?:^|_)(?:bytes|length|size|at|offset|end|start|count|index|s|is)(?:_|$)")


def leaky_comparisons(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each ``==``, ``!=`` or ``in`` with a secret on one side (comparing with None is no such)."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops):
            continue
        sides = [node.left, *node.comparators]
        if any(_is_secret(side) for side in sides):
            yield node.lineno, ast.unparse(node)


def _is_secret(node: ast.expr) -> bool:
    """Whether the name that ``node`` ends in tells of a secret; a slice of a secret, or its ``.raw``, is one too."""
    match node:
        case ast.Name(id=name):
            pass
        case ast.Attribute(value=value, attr="raw" | "hex" | "base64"):
            return _is_secret(value)
        case ast.Attribute(attr=name):
            pass
        case ast.Subscript(value=value):
            return _is_secret(value)
        case ast.Call(func=ast.Name(id="bytes" | "memoryview"), args=[value]):
            return _is_secret(value)
        case _:
            return False
    if name.isupper():  # a constant of the protocol: COOKIE_REPLY
        return False
    return bool(_SECRET_WORD.search(name.lower())) and not _PUBLIC_WORD.search(name.lower())
