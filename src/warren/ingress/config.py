"""Caddy's configuration (2.6, JSON), made from the sites: a pure function of values. Its part about certificates is
:mod:`warren.ingress.certificates`.

Every request of a site goes through these handlers: what only this gateway may say (who the client is) is dropped, and
so is every wish for another protocol but WebSocket; the request is passed on with the client's address in
X-Forwarded-For and X-Real-IP. That address is in the name of the socket that the connection comes from, which the
stream process gives it (:mod:`warren.l4.peers`); a connection without such a name is another program's of this host,
which gets 403. The stream process is told which connections become WebSockets, once the site has agreed
(:mod:`warren.l4.peer_lookup`).

Once there is a file ``left`` beside its admin socket, each request is the last of its connection, WebSockets excepted.

Where several gateways have one domain, an authority that was asked by one of them may look at any (RFC 8555 §8.3, by
HTTP; §8.4, by TLS, is then not offered). Caddy answers for what it has asked itself before any route is looked at; the
rest is asked of the other gateways in turn, with a header on it that ends it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from warren.ingress.certificates import certificates
from warren.ingress.sites import PUBLIC_HTTPS_PORT, Json, Ports, Settings, Site, door

ADMIN_HOST: Final = "warren"
"""The only Host that the admin API answers to, so that no browser can be led there."""
READ_HEADER_WITHIN_S: Final = 5
IDLE_S: Final = 60
HEADER_BYTES_MAX: Final = 32_768
GRACE_S: Final = 3600
"""How long requests that are under way may take after a change of the configuration; nothing waits for them."""
TELLING_MAX: Final = 64
"""Connections to the peer lookup at the same time; further WebSockets wait for an answer of a few hundred µs."""
KEPT_MAX: Final = 64
"""Connections to a site that are kept for the next request; two, where nothing is said."""
ANSWER_WITHIN_S: Final = 300
"""How long a site may take until it begins to answer."""
OTHER_WITHIN_S: Final = 3
"""How long another gateway may take to say whether it knows a challenge; an authority waits for ten seconds."""

# Names of headers may have any case here; * stands for anything.
_OURS_TO_SAY: Final = (
    "*forwarded*",
    "*warren*",
    "*real-ip*",
    "*client-ip*",
    "*connecting-ip*",
    "proxy",  # what CGI makes of it is the proxy of the program's own requests
    "*_*",  # what CGI and WSGI cannot tell from the same with hyphens
)
_NO_METHODS: Final = {
    "match": [{"method": ["CONNECT", "TRACE"]}],
    "handle": [{"handler": "static_response", "status_code": 405, "body": "no such method here\n"}],
    "terminal": True,
}
_WEBSOCKET: Final = {"header_regexp": {"Upgrade": {"pattern": "(?i)^websocket$"}}}
_ONLY_WEBSOCKETS: Final = {
    # A site that takes up anything else (h2c) would get further requests that nobody has looked at.
    "match": [{"not": [_WEBSOCKET]}],
    "handle": [{"handler": "headers", "request": {"delete": ["Upgrade", "HTTP2-Settings"]}}],
}
_LAST: Final = "warren_last"
_LAST_OF_CONNECTION: Final = {
    # Ends HTTP/1.1 after the answer, and HTTP/2 when all that is under way on it is answered (GOAWAY).
    "handler": "headers",
    "response": {"deferred": True, "set": {"Connection": ["close"]}},
}
_NEARLY_ALL: Final = ("*-*", "*a*", "*e*", "*i*", "*o*", "*u*")
"""2.6 fails on a lone asterisk."""
_CHALLENGES: Final = "/.well-known/acme-challenge/*"
_PASSED_ON: Final = "X-Warren-Challenge"
_NAMED: Final = {
    # As Go writes the name of an abstract socket.
    "vars_regexp": {"{http.request.remote}": {"name": "client", "pattern": "^@([0-9a-f.:]+)/([0-9a-f]{16})$"}}
}
_ADDRESS_OF_CLIENT: Final = "{http.regexp.client.1}"
_NONCE: Final = "{http.regexp.client.2}"


def configuration(sites: Sequence[Site], settings: Settings, ports: Ports, peer_lookup: Path) -> Json:
    """All of Caddy's configuration; ``sites`` in any order."""
    ordered = sorted(sites, key=lambda site: site.connector)
    secure = [site for site in ordered if site.certificate != "none"]
    plain = [site for site in ordered if site.certificate == "none"]
    servers = {
        "http": _server(
            (ports.http, peer_lookup),
            ["h1"],
            settings,
            [
                *(_ask_others(site) for site in secure if site.others),
                *(route for site in plain for route in _routes(site, peer_lookup)),
                *map(_redirect, secure),
                _nobody(404),
            ],
        ),
        "https": _server(
            (ports.https, peer_lookup),
            ["h1", "h2"],
            settings,
            [*(route for site in secure for route in _routes(site, peer_lookup)), _nobody(421)],
        )
        | {"tls_connection_policies": [{}], "strict_sni_host": True},
    }
    return beginning(settings) | {
        "apps": {
            "http": {
                "http_port": ports.http,
                "https_port": ports.https,
                "grace_period": f"{GRACE_S}s",
                "servers": servers,
            },
            "tls": certificates(secure, settings, ports),
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
        }
    }


def beginning(settings: Settings) -> Json:
    """What Caddy starts with: nothing but its admin API, its log and its storage."""
    return {
        "admin": {"listen": f"unix/{settings.admin}", "origins": [ADMIN_HOST], "config": {"persist": False}},
        "logging": {
            "logs": {
                "default": {
                    "writer": {
                        "output": "file",
                        "filename": str(settings.log),
                        "roll_size_mb": 1,
                        "roll_keep": 1,
                        "roll_gzip": False,
                    },
                    "encoder": {"format": "json"},
                    "level": "INFO",
                    # What clients provoke is counted by the stream process; a flood of them shall not be a flood here.
                    "exclude": ["http.log", "http.handlers", "http.stdlib", "admin", "tls.handshake"],
                    "sampling": {"interval": 1_000_000_000, "first": 20, "thereafter": 1000},
                }
            }
        },
        "storage": {"module": "file_system", "root": str(settings.storage)},
    }


def ports_in(config: Mapping[str, Any]) -> Ports | None:
    """What :func:`configuration` was given; None for another's configuration, or one without sites."""
    match config:
        case {"apps": {"http": {"http_port": int(http), "https_port": int(https)}}}:
            return Ports(http, https)
    return None


def doors_in(config: Mapping[str, Any]) -> list[Path]:
    """The Unix sockets that it listens at, by a configuration of :func:`configuration`'s."""
    servers = config.get("apps", {}).get("http", {}).get("servers", {})
    places = [place for server in servers.values() for place in server.get("listen", ())]
    return [Path(place.removeprefix("unix/")) for place in places if place.startswith("unix/")]


def _server(at: tuple[int, Path], protocols: list[str], settings: Settings, routes: list[Json]) -> Json:
    port, peer_lookup = at
    return {
        "listen": [f"127.0.0.1:{port}", f"unix/{door(peer_lookup.parent, port)}"],
        "protocols": protocols,
        "automatic_https": {"disable": True},
        "read_header_timeout": f"{READ_HEADER_WITHIN_S}s",
        "idle_timeout": f"{IDLE_S}s",
        "max_header_bytes": HEADER_BYTES_MAX,
        "routes": [_NO_METHODS, _end_when_left(settings), *routes],
        "errors": {
            "routes": [
                {"match": [{"vars": {f"{{http.vars.{_LAST}}}": ["1"]}}], "handle": [_LAST_OF_CONNECTION]},
                {
                    "handle": [
                        {
                            "handler": "static_response",
                            "status_code": "{http.error.status_code}",
                            "body": "{http.error.status_code} {http.error.status_text}\n",
                        }
                    ]
                },
            ]
        },
    }


def _end_when_left(settings: Settings) -> Json:
    """Another Caddy serves now: whoever asks shall come again, by another connection."""
    mark = {"root": str(settings.left.parent), "try_files": [settings.left.name]}
    return {
        "match": [{"file": mark, "not": [_WEBSOCKET]}],
        "handle": [{"handler": "vars", _LAST: "1"}, _LAST_OF_CONNECTION],
    }


def _routes(site: Site, peer_lookup: Path) -> list[Json]:
    """For those whose address is known, and for others."""
    hosts = {"host": list(site.domains)}
    return [
        {
            "match": [hosts | _NAMED],
            "handle": [
                {"handler": "headers", "request": {"delete": list(_OURS_TO_SAY)}},
                {"handler": "subroute", "routes": [_ONLY_WEBSOCKETS]},
                _pass_on(site, peer_lookup),
            ],
            "terminal": True,
        },
        {"match": [hosts], "handle": [{"handler": "static_response", "status_code": 403}], "terminal": True},
    ]


def _tell_of_websocket(peer_lookup: Path) -> Json:
    """Whatever the answer is, what comes next goes on as if nobody had been asked."""
    return {"handler": "subroute", "routes": [{"handle": [_telling(peer_lookup)]}], "errors": {"routes": []}}


def _telling(peer_lookup: Path) -> Json:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{peer_lookup}"}],
        "transport": {
            "protocol": "http",
            "compression": False,
            "dial_timeout": "2s",
            "response_header_timeout": "5s",
            "max_conns_per_host": TELLING_MAX,
            "keep_alive": {"idle_timeout": f"{IDLE_S}s", "max_idle_conns_per_host": TELLING_MAX},
        },
        "rewrite": {"method": "GET", "uri": f"/websocket/{_NONCE}?"},
        "headers": {"request": {"delete": list(_NEARLY_ALL)}},
        "handle_response": [{"routes": [{"handle": [{"handler": "error", "status_code": 500}]}]}],
    }


def _pass_on(site: Site, peer_lookup: Path) -> Json:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{site.upstream}"}],
        "transport": {
            "protocol": "http",
            "compression": False,
            "versions": ["1.1"],
            "dial_timeout": "10s",
            "response_header_timeout": f"{ANSWER_WITHIN_S}s",
            "keep_alive": {"idle_timeout": f"{IDLE_S}s", "max_idle_conns_per_host": KEPT_MAX},
        },
        "headers": {
            "request": {
                "set": {
                    "X-Forwarded-For": [_ADDRESS_OF_CLIENT],
                    "X-Real-Ip": [_ADDRESS_OF_CLIENT],
                    "X-Forwarded-Proto": ["{http.request.scheme}"],
                    "X-Forwarded-Host": ["{http.request.hostport}"],
                }
            }
        },
        "handle_response": [
            {
                "match": {"status_code": [101]},
                "routes": [{"handle": [_tell_of_websocket(peer_lookup), {"handler": "copy_response"}]}],
            }
        ],
    }


def _ask_others(site: Site) -> Json:
    """The first answer that is one; else 404."""
    handlers: list[Json] = [{"handler": "static_response", "status_code": 404}]
    for other in reversed(site.others):
        asked = {"routes": [{"handle": [_ask_other(other)]}], "errors": {"routes": [{"handle": handlers}]}}
        handlers = [{"handler": "subroute"} | asked]
    return {
        "match": [{"host": list(site.domains), "path": [_CHALLENGES], "method": ["GET"], "header": {_PASSED_ON: None}}],
        "handle": handlers,
        "terminal": True,
    }


def _ask_other(other: Path) -> Json:
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{other}"}],
        "transport": {
            "protocol": "http",
            "compression": False,
            "response_header_timeout": f"{OTHER_WITHIN_S}s",
            "keep_alive": {"enabled": False},
        },
        "headers": {"request": {"set": {_PASSED_ON: ["1"]}}},
        "handle_response": [
            {
                "match": {"status_code": [3, 4, 5]},  # of which this is the first digit
                "routes": [{"handle": [{"handler": "error", "status_code": 404}]}],
            }
        ],
    }


def _redirect(site: Site) -> Json:
    port = "" if site.https_port == PUBLIC_HTTPS_PORT else f":{site.https_port}"
    return {
        "match": [{"host": list(site.domains)}],
        "handle": [
            {
                "handler": "static_response",
                "status_code": 308,
                "headers": {"Location": [f"https://{{http.request.host}}{port}{{http.request.uri}}"]},
            }
        ],
        "terminal": True,
    }


def _nobody(status: int) -> Json:
    """For a Host that no site has."""
    return {"handle": [{"handler": "static_response", "status_code": status, "body": "no such site here\n"}]}
