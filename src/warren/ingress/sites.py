"""What the ingress is asked for, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

PUBLIC_HTTPS_PORT: Final = 443

Json = dict[str, Any]
"""A part of Caddy's configuration."""


@dataclass(frozen=True, slots=True)
class Site:
    """A web site: HTTP requests for one of ``domains`` go to ``upstream``.

    ============ ================================================================================================
    certificate  what it means
    ============ ================================================================================================
    ``acme``     HTTPS with a certificate of the authority in :class:`Settings`; plain HTTP leads there
    ``internal`` HTTPS with a certificate of this gateway's own authority; plain HTTP leads there
    ``none``     plain HTTP only
    ============ ================================================================================================
    """

    connector: str
    domains: tuple[str, ...]
    """In lower case; a domain belongs to one site."""
    certificate: Literal["acme", "internal", "none"]
    upstream: Path
    """A Unix socket that speaks HTTP/1.1: of the stream process, which knows the serving members."""
    https_port: int = PUBLIC_HTTPS_PORT
    """Where the world finds it; plain HTTP leads there."""
    others: tuple[Path, ...] = ()
    """Of ``acme``: Unix sockets that lead to where the other gateways of the same domains listen for plain HTTP. An
    authority comes to any of them, whichever asked it for a certificate: what is not this one's is asked there.
    """


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one gateway. Caddy keeps keys and certificates in ``state/caddy``; its socket and log are in ``run/caddy/N``,
    where N is its :attr:`generation`.
    """

    state: Path
    run: Path
    acme_directory: str | None = None
    """None: Let's Encrypt."""
    acme_email: str | None = None
    acme_ca: Path | None = None
    """Roots to trust for the ACME server, instead of the host's."""
    generation: int = 0
    """Of several processes, the later one has the higher number. 0: of none of them."""

    @property
    def storage(self) -> Path:
        return self.state / "caddy"

    @property
    def generations(self) -> Path:
        """The directory of all their directories; there while Caddy is meant to run."""
        return self.run / "caddy"

    @property
    def sockets(self) -> Path:
        return self.generations / str(self.generation)

    @property
    def admin(self) -> Path:
        return self.sockets / "admin.sock"

    @property
    def log(self) -> Path:
        return self.sockets / "log"

    @property
    def left(self) -> Path:
        """There once another process serves: see :mod:`warren.ingress.config`."""
        return self.sockets / "left"

    @property
    def internal_root(self) -> Path:
        """The certificate of the gateway's own authority, for clients to trust; there once a site is ``internal``."""
        return self.storage / "pki" / "authorities" / "local" / "root.crt"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where Caddy listens, on 127.0.0.1. The stream process goes to a Unix socket instead that stands for each port,
    see :func:`door`: what comes there alone is somebody's, and gets to see sites.
    """

    http: int
    https: int


def door(sites: Path, port: int) -> Path:
    """The Unix socket that Caddy listens at besides ``port``; ``sites`` is the directory of all sites' sockets, which
    nobody else can enter.
    """
    return sites / f"caddy-{port}.sock"
