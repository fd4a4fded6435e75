"""Certificates that a server makes for itself."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509

from warren.identity.certificates import self_made


def test_a_self_made_certificate_serves_and_is_valid_whatever_the_clock_says(tmp_path: Path) -> None:
    certificate, key = self_made("somebody")
    file = tmp_path / "both.pem"
    file.write_bytes(certificate + key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
    read = x509.load_pem_x509_certificate(certificate)
    assert (read.not_valid_before_utc.year, read.not_valid_after_utc.year) == (1970, 9999)
    assert read.subject.rfc4514_string() == "CN=somebody"
    assert self_made("somebody")[0] != certificate
