"""Requests' bodies: JSON, exactly what the OpenAPI description says, or a problem that names the place."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec
from litestar import Request

from warren.coordinator.web import problems
from warren.model.parts import COMMENT_PATTERN, NAME_PATTERN, SUFFIX_PATTERN, TAG_PATTERN
from warren.proto.control import desired_state

_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$?\.?(.*)`$")
_PATTERN: Final = re.compile(r"^Expected `str` matching regex (.*)$", re.DOTALL)
_WORDS: Final = {
    repr(NAME_PATTERN): "a name has a-z, 0-9 and inner hyphens, 63 characters at most",
    repr(TAG_PATTERN): "a tag has a-z, 0-9, _ and -, begins with a letter, and has 63 characters at most",
    repr(SUFFIX_PATTERN): "a suffix is one to eight names with dots between them, such as internal or vpn.example.com",
    repr(COMMENT_PATTERN): "a comment is one line of 256 characters at most",
}
_WHAT_CHARACTERS_MAX: Final = 512


class StrictRequest(Request[Any, Any, Any]):
    """Decodes the body straight to the type of the handler's ``data``; the framework would take "1" for 1."""

    async def json(self) -> Any:
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise problems.HttpProblem(
                "unsupported-media-type", f"a body of {media_type or 'no type'}", "Send JSON as application/json."
            )
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise problems.HttpProblem("unsupported-media-type", "a compressed body", "Send it as it is.")
        wanted = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        return decode_untrusted(await self.body(), wanted)


def decode_untrusted(body: bytes, wanted: Any) -> Any:
    """Raises HttpProblem: ``malformed`` when it is no JSON, ``invalid`` when it is not what is wanted."""
    try:
        return _decoder(wanted).decode(body)
    except msgspec.ValidationError as error:
        raise problems.invalid((_explain(error),)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise problems.HttpProblem("malformed", f"the body is no JSON: {error}", "Send one JSON object.") from None
    except (RecursionError, ValueError):
        # Nesting without end, or a number of thousands of digits.
        raise problems.HttpProblem(
            "malformed", "the body holds something larger than any request needs", "Send one JSON object."
        ) from None


def _explain(error: msgspec.ValidationError) -> desired_state.Problem:
    text = str(error)
    found = _PLACE.search(text)
    what = text if found is None else text[: found.start()]
    pattern = _PATTERN.match(what)
    if pattern is not None:
        what = _WORDS.get(pattern[1], "the text is not of the form that is described")
    return desired_state.Problem(where="" if found is None else found[1], what=what[:_WHAT_CHARACTERS_MAX])


@functools.cache
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted)
