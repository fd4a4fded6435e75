"""Documents: who must have signed what, what each field may be, and that nothing else comes through."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import MadeNetwork, signing_key
from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey
from warren.model.documents import Document, DocumentKey
from warren.model.envelope import Envelope, pack_envelope, seal, unpack_envelope_untrusted
from warren.model.verified import SMALL_BYTES_MAX, Verified, sign, verify

HOME, WORK = MadeNetwork("home"), MadeNetwork("work")


def made(network: MadeNetwork) -> dict[str, Verified[Document]]:
    return {
        "network": network.spec(),
        "membership": network.membership("web", tags=("www",), routes=("192.168.7.0/24",)),
        "revocation": network.revocation("old"),
        "node": network.record("web"),
        "ticket": network.ticket(),
    }


DOCUMENTS, FOREIGN = made(HOME), made(WORK)
SIGNERS = {kind: HOME.node("web") if kind == "node" else HOME.authority for kind in DOCUMENTS}
KINDS = pytest.mark.parametrize("kind", list(DOCUMENTS))


def fields(kind: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.msgpack.decode(DOCUMENTS[kind].envelope.payload)
    return decoded


def resealed(kind: str, content: Any, key: SigningKey | None = None) -> Envelope:
    return seal(kind, msgspec.msgpack.encode(content), key or SIGNERS[kind])


@KINDS
def test_what_was_signed_is_verified(kind: str) -> None:
    document = DOCUMENTS[kind]
    carried = unpack_envelope_untrusted(pack_envelope(document.envelope))
    assert verify(carried, HOME.key) == document
    subject = HOME.node("web").verify_key.raw if kind in {"membership", "node"} else b""
    assert document.key == DocumentKey(kind, subject)


@KINDS
def test_a_document_of_another_network_is_refused(kind: str) -> None:
    with pytest.raises(MalformedPacket):
        verify(FOREIGN[kind].envelope, HOME.key)
    # A node with one key in both networks: its record of one is none in the other.
    foreign = {**fields(kind), "network": WORK.key.raw}
    with pytest.raises(MalformedPacket, match="of another network"):
        verify(resealed(kind, foreign), HOME.key)


@KINDS
def test_a_document_that_somebody_else_signed_is_refused(kind: str) -> None:
    for other in (signing_key("stranger"), HOME.node("db"), WORK.authority):
        with pytest.raises(MalformedPacket):
            verify(resealed(kind, fields(kind), other), HOME.key)
        stolen = msgspec.structs.replace(DOCUMENTS[kind].envelope, signer=other.verify_key.raw)
        with pytest.raises(MalformedPacket, match="did not sign"):
            verify(stolen, HOME.key)


def test_authority_and_node_do_not_sign_for_each_other() -> None:
    with pytest.raises(MalformedPacket, match="another node than the one that signed"):
        verify(resealed("node", fields("node"), HOME.authority), HOME.key)
    with pytest.raises(MalformedPacket, match="did not sign"):
        verify(resealed("membership", fields("membership"), HOME.node("web")), HOME.key)


@KINDS
def test_signing_with_the_wrong_key_is_a_mistake(kind: str) -> None:
    with pytest.raises(ValueError, match="is not signed with the key"):
        sign(DOCUMENTS[kind].document, signing_key("stranger"))


@KINDS
def test_a_signed_document_does_not_pass_as_another_kind(kind: str) -> None:
    for other in DOCUMENTS:
        if other != kind:
            with pytest.raises(MalformedPacket, match="did not sign"):
                verify(msgspec.structs.replace(DOCUMENTS[kind].envelope, kind=other), HOME.key)


@KINDS
def test_every_bit_of_a_document_counts(kind: str) -> None:
    envelope = DOCUMENTS[kind].envelope
    for at in range(len(envelope.payload)):
        payload = bytearray(envelope.payload)
        payload[at] ^= 1 << at % 8
        with pytest.raises(MalformedPacket):
            verify(msgspec.structs.replace(envelope, payload=bytes(payload)), HOME.key)


@KINDS
@given(data=st.data())
def test_any_payload_only_fails_to_be_a_document(kind: str, data: st.DataObject) -> None:
    payload = data.draw(st.binary(max_size=200))
    with pytest.raises(MalformedPacket):
        verify(seal(kind, payload, SIGNERS[kind]), HOME.key)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=33) | st.sampled_from(["members", "10.0.0.0/8", "fd00::/48", "tag:x", "\ud7ff", "a\n"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@KINDS
@given(data=st.data())
def test_any_value_in_a_signed_field_is_good_or_refused(kind: str, data: st.DataObject) -> None:
    content = fields(kind)
    name = data.draw(st.sampled_from(sorted(content)))
    try:
        document = verify(resealed(kind, {**content, name: data.draw(VALUES)}), HOME.key).document
    except MalformedPacket:
        return
    assert sign(document, SIGNERS[kind]).document == document


@KINDS
def test_no_nesting_is_too_deep(kind: str) -> None:
    for nested in (b"\x91" * 200_000, b"\x81\xa1x" * 100_000):
        for payload in (nested, b"\x81\xa1x" + nested, b"\x82\xa6policy" + nested):
            with pytest.raises(MalformedPacket):
                verify(seal(kind, payload, SIGNERS[kind]), HOME.key)


@KINDS
@pytest.mark.parametrize("head", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
def test_no_length_that_is_only_claimed_is_believed(kind: str, head: bytes) -> None:
    for name in fields(kind):
        payload = b"\x82" + msgspec.msgpack.encode(name) + head + b"\xff\xff\xff\xff"
        with pytest.raises(MalformedPacket):
            verify(seal(kind, payload, SIGNERS[kind]), HOME.key)


@KINDS
def test_fields_of_later_versions_are_carried_on_and_still_verify(kind: str) -> None:
    content = {**fields(kind), "colour": {"shade": [1, b"2", None]}, "weight": 7}
    verified = verify(resealed(kind, content), HOME.key)
    assert verified.document == DOCUMENTS[kind].document
    passed_on = unpack_envelope_untrusted(pack_envelope(verified.envelope))
    assert msgspec.msgpack.decode(verify(passed_on, HOME.key).envelope.payload) == content


def test_an_unknown_kind_is_no_document_that_is_understood() -> None:
    with pytest.raises(MalformedPacket, match="unknown kind 'colour'"):
        verify(seal("colour", b"\x80", HOME.authority), HOME.key)


@KINDS
def test_every_field_that_has_no_default_is_needed(kind: str) -> None:
    struct = type(DOCUMENTS[kind].document)
    needed = [f.name for f in msgspec.structs.fields(struct) if f.required]
    assert {"network", "version"} <= set(needed)
    for name in needed:
        content = {key: value for key, value in fields(kind).items() if key != name}
        with pytest.raises(MalformedPacket, match=f"missing required field `{name}`"):
            verify(resealed(kind, content), HOME.key)


def test_a_stranger_cannot_make_anybody_read_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr("warren.model.documents.check_selector", lambda text, **_: read.append(text))
    verify(HOME.spec().envelope, HOME.key)
    assert read == ["members", "members"]
    with pytest.raises(MalformedPacket, match="did not sign"):
        verify(resealed("network", fields("network"), signing_key("stranger")), HOME.key)
    assert len(read) == 2


@pytest.mark.parametrize("kind", ["membership", "node", "ticket"])
def test_what_there_is_of_every_node_is_small(kind: str) -> None:
    fits = {**fields(kind), "padding": bytes(SMALL_BYTES_MAX - 1000)}
    assert verify(resealed(kind, fits), HOME.key).document == DOCUMENTS[kind].document
    with pytest.raises(MalformedPacket, match=f"a {kind} document of 1"):
        verify(resealed(kind, {**fields(kind), "padding": bytes(SMALL_BYTES_MAX)}), HOME.key)
