"""What Caddy is told of certificates."""

from __future__ import annotations

from pathlib import Path

from warren.ingress.certificates import LETS_ENCRYPT, certificates
from warren.ingress.sites import Ports, Settings, Site

SETTINGS = Settings(Path("/var/lib/warren"), Path("/run/warren"))
PORTS = Ports(8001, 8002)
SHOP = Site("shop", ("shop.example", "www.shop.example"), "acme", Path("/run/warren/shop.sock"))
HOME = Site("home", ("home.example",), "internal", Path("/run/warren/home.sock"))


def test_certificates_come_from_where_each_site_says() -> None:
    tls = certificates((SHOP, HOME), SETTINGS, PORTS)
    assert sorted(tls["certificates"]["automate"]) == ["home.example", "shop.example", "www.shop.example"]
    acme, internal, _ = tls["automation"]["policies"]
    assert acme["subjects"] == ["shop.example", "www.shop.example"]
    assert acme["issuers"][0]["ca"] == LETS_ENCRYPT
    assert acme["issuers"][0]["challenges"]["http"] == {"alternate_port": 8001}
    assert acme["issuers"][0]["challenges"]["tls-alpn"] == {"alternate_port": 8002}
    assert internal == {"subjects": ["home.example"], "issuers": [{"module": "internal"}]}


def test_the_authority_may_be_another() -> None:
    settings = Settings(Path("/s"), Path("/r"), "https://acme.example/dir", "me@example.org", Path("/etc/root.pem"))
    policy, others = certificates((SHOP,), settings, PORTS)["automation"]["policies"]
    (issuer,) = policy["issuers"]
    assert others == {"issuers": [{"module": "acme", "ca": issuer["ca"]}]}
    assert (issuer["ca"], issuer["email"]) == ("https://acme.example/dir", "me@example.org")
    assert issuer["trusted_roots_pem_files"] == ["/etc/root.pem"]


def test_without_sites_of_a_kind_there_is_no_policy_for_it_but_what_other_processes_ask_for_is_answered() -> None:
    """The last one has no subjects, and so is for all other names; nothing is asked for by it."""
    tls = certificates((), SETTINGS, PORTS)
    assert tls["certificates"] == {"automate": []}
    assert tls["automation"] == {"policies": [{"issuers": [{"module": "acme", "ca": LETS_ENCRYPT}]}]}
    assert ["subjects" in one for one in certificates((SHOP, HOME), SETTINGS, PORTS)["automation"]["policies"]] == [
        True,
        True,
        False,
    ]


def test_gateways_that_share_a_domain_are_looked_at_by_http_alone() -> None:
    both = Site("both", ("both.example",), "acme", SHOP.upstream, others=(Path("/run/one.sock"),))
    policies = certificates((SHOP, both), SETTINGS, PORTS)["automation"]["policies"]
    by_tls = {tuple(one["subjects"]): one["issuers"][0]["challenges"]["tls-alpn"] for one in policies[:-1]}
    assert by_tls == {SHOP.domains: {"alternate_port": PORTS.https}, both.domains: {"disabled": True}}
