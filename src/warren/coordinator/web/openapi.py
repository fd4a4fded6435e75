"""The API's own description: OpenAPI 3.1, made from the handlers that answer and the structs that they decode.

The framework's generator is not used: msgspec's JSON Schema says exactly what its decoder does.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final, get_args

import msgspec
from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from warren import __version__
from warren.coordinator.problems import KINDS
from warren.coordinator.web.problems import HTTP_KINDS, MEDIA_TYPE, ProblemDetails

PATH: Final = "/v1/openapi.json"
SECURITY: Final = "token"

_ALWAYS: Final = (400, 408, 421, 429, 431, 500)
_GUARDED: Final = (401, 403, 503)
_WITH_PATH: Final = (404,)
_WITH_BODY: Final = (404, 409, 413, 415, 422)
_MEANINGS: Final = {
    400: "The request is malformed",
    401: "The token is missing, wrong, expired or revoked",
    403: "The token may not do this, or the request comes from a page of another site",
    404: "There is no such thing, or the token may not see it",
    408: "The request did not arrive in time",
    409: "This contradicts what is there",
    413: "The body is too large",
    415: "The body is no JSON",
    421: "The Host header names another host",
    422: "The request asks for something that cannot be",
    429: "Too many requests; Retry-After says when to come back",
    431: "The headers are too large",
    500: "A bug in the coordinator",
    503: "The coordinator cannot do this now; Retry-After says when to come back",
}
_REF: Final = "#/components/schemas/{name}"
_RESPONSE: Final = "#/components/responses/Refusal{}"


def describe(public: Iterable[HTTPRouteHandler], guarded: Iterable[HTTPRouteHandler]) -> dict[str, Any]:
    """The document, ready for JSON."""
    operations = [(handler, False) for handler in public] + [(handler, True) for handler in guarded]
    types = {ProblemDetails: None} | {kind: None for handler, _ in operations for kind in _types(handler)}
    schemas, components = msgspec.json.schema_components(list(types), ref_template=_REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for handler, needs_token in operations:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", next(iter(handler.paths)))
        (method,) = (method for method in handler.http_methods if method != "OPTIONS")
        paths.setdefault(path, {})[method.lower()] = _operation(handler, path, needs_token, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Warren coordinator",
            "version": __version__,
            "description": "Networks, members, invites and policy. Every refusal is an RFC 9457 problem. Nodes speak "
            "to /v1/node by WebSocket, which is not described here.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {f"Refusal{status}": _refusal(status) for status in _MEANINGS},
            "securitySchemes": {
                SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The secret of a token: role admin or reader, of all networks or of one.",
                }
            },
        },
    }


def _types(handler: HTTPRouteHandler) -> list[Any]:
    """What a handler takes and gives, as far as it is a value."""
    signature = handler.parsed_fn_signature
    found = [parameter.annotation for name, parameter in signature.parameters.items() if name == "data"]
    if not _is_text(handler):
        found.append(signature.return_type.annotation)
    return found


def _operation(
    handler: HTTPRouteHandler, path: str, needs_token: bool, schema_of: dict[Any, dict[str, Any]]
) -> dict[str, Any]:
    signature = handler.parsed_fn_signature
    has_body = "data" in signature.parameters
    names = re.findall(r"\{(\w+)\}", path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names
    ]
    for name, bounds in _query(handler).items():
        schema = {
            "type": "integer",
            "minimum": bounds.ge,
            "maximum": bounds.le,
            "default": signature.parameters[name].default,
        }
        described = {"name": name, "in": "query", "required": False, "description": bounds.description}
        parameters.append({**described, "schema": schema})
    statuses = set(_ALWAYS)
    statuses |= set(_GUARDED) if needs_token else {503} if "ready" in path else set()
    statuses |= set(_WITH_PATH) if names else set()
    statuses |= set(_WITH_BODY) if has_body else {422} if _query(handler) else set()
    statuses |= {409} if "delete" in _method(handler) else set()
    operation: dict[str, Any] = {
        "operationId": handler.handler_name,
        "summary": inspect.getdoc(handler.fn).split("\n")[0].rstrip("."),  # type: ignore[union-attr]
        "parameters": parameters,
        "responses": {
            str(handler.status_code): _success(handler, schema_of),
            **{str(status): {"$ref": _RESPONSE.format(status)} for status in sorted(statuses)},
        },
    }
    if needs_token:
        operation["security"] = [{SECURITY: []}]
    if has_body:
        schema = schema_of[signature.parameters["data"].annotation]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _success(handler: HTTPRouteHandler, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    description = "Made" if handler.status_code == 201 else "Done"
    if _is_text(handler):
        return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}
    schema = schema_of[handler.parsed_fn_signature.return_type.annotation]
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusal(status: int) -> dict[str, Any]:
    kinds = sorted({kind for table in (KINDS, HTTP_KINDS) for kind, (its, _) in table.items() if its == status})
    refusal: dict[str, Any] = {
        "description": f"{_MEANINGS[status]} (type: {', '.join(f'`urn:warren:problem:{kind}`' for kind in kinds)})",
        "content": {MEDIA_TYPE.decode(): {"schema": {"$ref": _REF.format(name="ProblemDetails")}}},
    }
    if status in {429, 503}:
        refusal["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}}
    if status == 401:
        refusal["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return refusal


def _query(handler: HTTPRouteHandler) -> dict[str, QueryParameter]:
    """The query parameters, all of them numbers, with their bounds."""
    return {
        name: extra
        for name, parameter in handler.parsed_fn_signature.parameters.items()
        for extra in get_args(parameter.raw)
        if isinstance(extra, QueryParameter)
    }


def _method(handler: HTTPRouteHandler) -> set[str]:
    return {method.lower() for method in handler.http_methods}


def _is_text(handler: HTTPRouteHandler) -> bool:
    annotation = handler.parsed_fn_signature.return_type.annotation
    return getattr(annotation, "__origin__", annotation) is Response
