"""Varlink's interface definition language, made from the structs that travel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from warren.api.varlink import FAILED

_ENUM_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def describe(interface: str, methods: Mapping[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]]) -> str:
    """The description of an interface: each method with the structs that its parameters and its answer are. Its one
    error is ``Failed``.

    Optional fields (``?``) are those that may be null or left out. Raises ValueError for a type that Varlink has not.
    """
    structs: dict[str, inspect.StructType] = {}
    lines = [f"interface {interface}"]
    signatures = []
    for name, (parameters, answer) in methods.items():
        taken, given = (_fields(_struct_of(struct), structs) for struct in (parameters, answer))
        signatures.append(f"method {name}{taken} -> {given}")
    told: set[str] = set()
    while missing := [name for name in structs if name not in told]:
        for name in missing:
            told.add(name)
            lines.append(f"type {name} {_fields(structs[name], structs)}")
    lines += signatures
    lines.append(f"error {FAILED} (message: string, exit_status: int)")
    return "\n\n".join(lines) + "\n"


def _struct_of(struct: type[msgspec.Struct]) -> inspect.StructType:
    found = inspect.type_info(struct)
    if not isinstance(found, inspect.StructType):
        raise TypeError(f"{struct} is no struct")
    return found


def _fields(struct: inspect.StructType, structs: dict[str, inspect.StructType]) -> str:
    parts = []
    for field in struct.fields:
        text = _type(field.type, structs)
        if not field.required and not text.startswith("?"):
            text = f"?{text}"
        parts.append(f"{field.encode_name}: {text}")
    return f"({', '.join(parts)})"


def _type(kind: inspect.Type, structs: dict[str, inspect.StructType]) -> str:
    match kind:
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return "int"
        case inspect.FloatType():
            return "float"
        case inspect.StrType() | inspect.DateTimeType():
            return "string"
        case inspect.LiteralType(values=values) if _are_words(values):
            return f"({', '.join(map(str, values))})"
        case inspect.LiteralType():
            return "string"
        case inspect.DictType(key_type=inspect.StrType(), value_type=item):
            return f"[string]{_type(item, structs)}"
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"[]{_type(item, structs)}"
        case inspect.UnionType(types=types):
            return _optional(types, structs)
        case inspect.Metadata(type=inner):
            return _type(inner, structs)
        case inspect.StructType(cls=cls):
            structs.setdefault(cls.__name__, kind)
            return cls.__name__
        case _:
            raise ValueError(f"Varlink has no type for {kind}")


def _optional(types: Iterable[inspect.Type], structs: dict[str, inspect.StructType]) -> str:
    others = [one for one in types if not isinstance(one, inspect.NoneType)]
    if len(others) != 1:
        raise ValueError("Varlink has no type for a choice of types")
    return f"?{_type(others[0], structs)}"


def _are_words(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and _ENUM_WORD.fullmatch(value) for value in values)
