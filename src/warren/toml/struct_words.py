"""What msgspec finds wrong with a value, in words for people who wrote a file or an option."""

from __future__ import annotations

import re
from typing import Final

_LIMIT: Final = re.compile(r"Expected (int|float|array|str)( of length)? (>=|<=|>|<) ([-0-9.]+)")
_KIND: Final = re.compile(r"Expected ([a-z| ]+), got ([a-z]+)")
_ENOUGH: Final = {"<=": "at most {}", "<": "less than {}", ">=": "at least {}", ">": "more than {}"}
_LENGTHS: Final = {"array": "a list of {}", "str": "a text of {} characters"}
_KINDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "datetime": "a date",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "object": "a table",
    "str": "a text",
}


def in_a_line(sentence: str) -> str:
    """``sentence``, a message of msgspec or of a struct's own check, to go on after a colon: in lower case, unless it
    begins with a name like FTP.
    """
    if sentence.startswith(("Expected ", "Invalid ", "Object ")):  # msgspec's own: others speak of commands
        sentence = sentence.replace("`", "")
    limit, kind = _LIMIT.fullmatch(sentence), _KIND.fullmatch(sentence)
    if limit is not None:
        enough = _ENOUGH[limit[3]].format(limit[4].removesuffix(".0"))
        return "this must be " + (_LENGTHS[limit[1]].format(enough) if limit[2] else enough)
    if kind is not None:
        wanted = " or ".join(_KINDS.get(one, one) for one in kind[1].split(" | ") if one != "null")
        return f"this must be {wanted}, not {_KINDS.get(kind[2], kind[2])}"
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]
