"""The paths of the REST API that need no token: who the coordinator is, and whether it is well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from litestar import get

from warren import __version__
from warren.coordinator.tls import Served
from warren.coordinator.web.door import CERTIFICATE
from warren.coordinator.web.given import Given, Web, service_of


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which coordinator answers, and its word that the certificate of this connection is its own."""

    key: str
    certificate_sha256: str
    """Hexadecimal, of the DER form."""
    statement: str
    """Hexadecimal: an Ed25519 signature of ``key`` over the certificate's hash."""
    time: datetime
    version: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the coordinator lives, or is ready to serve."""

    status: str


@get("/v1/identity", sync_to_thread=False)
def read_identity(request: Web, service: Given) -> Identity:
    """Which coordinator this is. Verify the statement with the key that you pinned."""
    served = request.scope["state"][CERTIFICATE]
    assert isinstance(served, Served)  # noqa: S101 - put there by the server
    return Identity(
        key=str(service.identity.verify_key),
        certificate_sha256=served.certificate_sha256.hex(),
        statement=served.statement.hex(),
        time=datetime.now(UTC),
        version=__version__,
    )


@get("/health/live", sync_to_thread=False)
def read_liveness() -> Health:
    """The process answers."""
    return Health(status="live")


@get("/health/ready")
async def read_readiness(service: Given) -> Health:
    """The database answers too."""
    await service_of(service).ready()
    return Health(status="ready")


PUBLIC: Final = (read_identity, read_liveness, read_readiness)
