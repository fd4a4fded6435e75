"""``org.varlink.service``: what every Varlink service says of itself (https://varlink.org)."""

from __future__ import annotations

from typing import Final

import msgspec

SERVICE_DESCRIPTION: Final = """\
# The Varlink service interface, which every service provides.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error MethodNotImplemented (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()

error ExpectedMore ()
"""


class Info(msgspec.Struct, frozen=True):
    """Who serves."""

    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class Nothing(msgspec.Struct, frozen=True):
    """No parameters, or an answer that says only that it is done."""


class Asked(msgspec.Struct, frozen=True):
    """The name of an interface."""

    interface: str


class Description(msgspec.Struct, frozen=True):
    """Its description."""

    description: str
