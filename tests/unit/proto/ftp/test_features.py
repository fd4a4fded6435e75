"""The reply to FEAT says what is true of the helper."""

from __future__ import annotations

from warren.proto.ftp.features import Features
from warren.proto.ftp.lines import Line
from warren.proto.ftp.replies import Replies


def corrected(*texts: bytes) -> list[bytes]:
    replies, features = Replies(), Features()
    return [line for text in texts for line in features.correct(replies.part_untrusted(Line(text)))]


def test_tls_is_not_offered_and_the_rest_is() -> None:
    assert corrected(b"211-Features:", b" AUTH TLS", b" PBSZ", b" PROT", b" EPRT", b" EPSV", b" MDTM", b"211 End") == [
        b"211-Features:",
        b" EPRT",
        b" EPSV",
        b" MDTM",
        b"211 End",
    ]


def test_what_the_helper_adds_to_a_server_is_said() -> None:
    assert corrected(b"211-Features:", b" UTF8", b"211 End") == [
        b"211-Features:",
        b" UTF8",
        b" EPRT",
        b" EPSV",
        b"211 End",
    ]


def test_servers_that_put_the_code_before_each_feature_are_understood() -> None:
    assert corrected(b"211-Features:", b"211- AUTH TLS;SSL", b"211- EPSV", b"211- EPRT", b"211 End") == [
        b"211-Features:",
        b"211- EPSV",
        b"211- EPRT",
        b"211 End",
    ]


def test_a_server_without_features_is_believed() -> None:
    assert corrected(b"500 What?") == [b"500 What?"]
    assert corrected(b"211 No features") == [b"211 No features"]
