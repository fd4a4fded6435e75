"""What Caddy's configuration says of certificates: for which domains there are to be any, and from whom.

What one process of Caddy has asked an authority for, another one at the same storage can answer, also for domains that
it has no site for: which of them a look comes to while one follows the other does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warren.ingress.sites import Json, Ports, Settings, Site

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"


def certificates(sites: Sequence[Site], settings: Settings, ports: Ports) -> Json:
    """Caddy's app ``tls`` for sites that have a certificate. Pure."""
    policies = []
    by_kind: dict[tuple[str, bool], list[str]] = {}
    for site in sites:
        by_kind.setdefault((site.certificate, bool(site.others)), []).extend(site.domains)
    for (kind, shared), domains in sorted(by_kind.items()):
        issuer = _acme(settings, ports, shared=shared) if kind == "acme" else {"module": "internal"}
        policies.append({"subjects": domains, "issuers": [issuer]})
    policies.append({"issuers": [{"module": "acme", "ca": _authority(settings)}]})  # for what others have asked for
    return {
        "certificates": {"automate": [domain for site in sites for domain in site.domains]},
        "automation": {"policies": policies},
    }


def _acme(settings: Settings, ports: Ports, *, shared: bool) -> Json:
    by_tls: Json = {"disabled": True} if shared else {"alternate_port": ports.https}
    issuer: Json = {
        "module": "acme",
        "ca": _authority(settings),
        "challenges": {
            "bind_host": "127.0.0.1",
            "http": {"alternate_port": ports.http},
            "tls-alpn": by_tls,
        },
    }
    if settings.acme_email is not None:
        issuer["email"] = settings.acme_email
    if settings.acme_ca is not None:
        issuer["trusted_roots_pem_files"] = [str(settings.acme_ca)]
    return issuer


def _authority(settings: Settings) -> str:
    return settings.acme_directory or LETS_ENCRYPT
