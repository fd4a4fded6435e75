from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.unit.coordinator.web.harness import running, trusting
from warren.coordinator.tls import Certificates, make_certificate, own_directory
from warren.errors import OperationFailed, UsageError
from warren.identity.signing import SigningKey
from warren.proto.control.messages import certificate_is_stated

IDENTITY = SigningKey(bytes(range(32)))


def test_the_first_start_makes_a_p256_key_and_a_certificate_without_end(tmp_path: Path) -> None:
    certificate_file, key_file = make_certificate(tmp_path)
    assert key_file.stat().st_mode & 0o777 == 0o600
    key = load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_a_later_start_keeps_them_and_two_installations_differ(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = make_certificate(tmp_path / "a")[1].read_bytes()
    assert make_certificate(tmp_path / "a")[1].read_bytes() == first
    assert make_certificate(tmp_path / "b")[1].read_bytes() != first


@pytest.mark.parametrize("damaged", [0, 1], ids=["certificate", "key"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-60], lambda data: bytes(len(data))])
def test_a_damaged_one_of_its_own_is_made_anew(tmp_path: Path, damaged: int, damage: Callable[[bytes], bytes]) -> None:
    file = make_certificate(tmp_path)[damaged]
    file.write_bytes(damage(file.read_bytes()))
    Certificates(*make_certificate(tmp_path), IDENTITY)


def test_the_identity_vouches_for_the_certificate_that_is_served(tmp_path: Path) -> None:
    served = Certificates(*make_certificate(tmp_path), IDENTITY).current
    assert certificate_is_stated(IDENTITY.verify_key, served.certificate_sha256, served.statement)


def test_a_new_certificate_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = make_certificate(tmp_path / "a")
    certificates = Certificates(*files, IDENTITY)
    first = certificates.current
    assert not certificates.have_changed()
    assert certificates.reload() is False
    for mine, other in zip(files, make_certificate(tmp_path / "b"), strict=True):
        mine.write_bytes(other.read_bytes())
    assert certificates.have_changed()
    assert certificates.reload() is True
    second = certificates.current
    assert second.certificate_sha256 != first.certificate_sha256
    assert not certificates.have_changed()
    files[0].write_bytes(b"")
    assert certificates.have_changed()
    with pytest.raises(UsageError):
        certificates.reload()
    assert certificates.current is second
    assert not certificates.have_changed()


def test_files_that_are_no_certificate_and_key_are_told_apart(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = make_certificate(tmp_path / "other")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nothing")
    for pair, why in (
        ((tmp_path / "missing", key), "No such file"),
        ((certificate, tmp_path / "missing"), "No such file"),
        ((nonsense, key), "not in PEM form"),
        ((certificate, other_key), "do not belong together"),
        ((certificate, nonsense), "do not belong together"),
    ):
        with pytest.raises(UsageError, match=why):
            Certificates(*pair, IDENTITY)


def test_a_state_directory_that_is_no_directory_is_named(tmp_path: Path) -> None:
    own_directory(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationFailed, match="file"):
        own_directory(tmp_path / "file")


def test_a_connection_keeps_its_certificate_and_the_next_one_gets_the_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running() as coordinator, coordinator.client() as client:
            before = (await client.get("/v1/identity")).json()
            for mine, other in zip(make_certificate(coordinator.directory), make_certificate(tmp_path), strict=True):
                mine.write_bytes(other.read_bytes())
            assert coordinator.certificates.reload()
            assert (await client.get("/v1/identity")).json()["certificate_sha256"] == before["certificate_sha256"]
            async with coordinator.client() as newcomer:
                after = (await newcomer.get("/v1/identity")).json()
            assert after["certificate_sha256"] != before["certificate_sha256"]
            assert after["key"] == before["key"]

    asyncio.run(scenario())


def test_what_the_identity_says_is_about_the_certificate_of_that_connection() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            reader, writer = await coordinator.stream()
            writer.write(b"GET /v1/identity HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
            tls = writer.get_extra_info("ssl_object")
            import hashlib
            import json

            said = json.loads(body)
            assert said["certificate_sha256"] == hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()
            assert tls.version() == "TLSv1.3"
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


def test_older_tls_is_refused() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            context = trusting()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", coordinator.port, ssl=context)

    asyncio.run(scenario())
