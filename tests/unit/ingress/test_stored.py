from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from warren.ingress.stored import domains_served, take_away_damaged, valid_for_s

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
AUTHORITY = "caddy/pki/authorities/local"
SITE = "caddy/certificates/local/www.example.org"
WHOLE = {
    f"{AUTHORITY}/root.crt": PEM,
    f"{AUTHORITY}/root.key": PEM,
    f"{AUTHORITY}/intermediate.crt": PEM,
    f"{AUTHORITY}/intermediate.key": PEM,
    f"{SITE}/www.example.org.crt": PEM,
    f"{SITE}/www.example.org.key": PEM,
    f"{SITE}/www.example.org.json": '{"sans":["www.example.org"]}',
    "caddy/locks/some.lock": "",
}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for name, text in WHOLE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def left(storage: Path) -> set[str]:
    return {str(file.relative_to(storage)) for file in storage.rglob("*") if file.is_file()}


def test_what_is_whole_stays(storage: Path) -> None:
    assert take_away_damaged(storage) == []
    assert left(storage) == set(WHOLE)


@pytest.mark.parametrize("cut", ["", PEM[:20], PEM[:-28]])
@pytest.mark.parametrize("suffix", ["crt", "key"])
def test_a_certificate_that_was_cut_off_goes_with_its_key_and_the_other_way_round(
    storage: Path, cut: str, suffix: str
) -> None:
    (storage / f"{SITE}/www.example.org.{suffix}").write_text(cut)
    assert sorted(take_away_damaged(storage)) == [f"www.example.org.{one}" for one in ("crt", "json", "key")]
    assert left(storage) == {name for name in WHOLE if SITE not in name}


@pytest.mark.parametrize("cut", ["", '{"sans":'])
def test_so_does_what_is_noted_of_it(storage: Path, cut: str) -> None:
    (storage / f"{SITE}/www.example.org.json").write_text(cut)
    assert len(take_away_damaged(storage)) == 3


def test_an_intermediate_certificate_goes_alone_and_a_root_with_all_that_it_signed(storage: Path) -> None:
    (storage / f"{AUTHORITY}/intermediate.crt").write_text("")
    assert take_away_damaged(storage) == ["intermediate.crt", "intermediate.key"]
    for name in ("intermediate.crt", "intermediate.key"):
        (storage / AUTHORITY / name).write_text(PEM)
    (storage / f"{AUTHORITY}/root.key").write_bytes(b"\xff")
    assert take_away_damaged(storage) == ["intermediate.crt", "intermediate.key", "root.crt", "root.key"]


def test_where_nothing_was_stored_yet_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert take_away_damaged(tmp_path / "missing") == []


def test_the_best_certificate_of_a_domain_says_how_long_it_is_valid(tmp_path: Path) -> None:
    assert valid_for_s(tmp_path, "a.example") is None
    for authority in ("one", "other"):
        directory = tmp_path / "certificates" / authority / "a.example"
        directory.mkdir(parents=True)
        (directory / "a.example.crt").write_text("cut off")
    assert valid_for_s(tmp_path, "a.example") is None
    (directory / "a.example.crt").write_text(make_certificate("a.example").pem)
    left_s = valid_for_s(tmp_path, "a.example")
    assert left_s is not None
    assert left_s > 0
    assert valid_for_s(tmp_path, "b.example") is None


def test_domains_were_served_that_have_a_certificate_of_an_authority_which_is_not_this_gateways_own(
    tmp_path: Path,
) -> None:
    for authority, domain in (("acme-v02", "a.example"), ("local", "b.example")):
        directory = tmp_path / "certificates" / authority / domain
        directory.mkdir(parents=True)
        (directory / f"{domain}.crt").write_text(make_certificate(domain).pem)
    assert domains_served(tmp_path) == {"a.example"}
    assert domains_served(tmp_path / "missing") == frozenset()
