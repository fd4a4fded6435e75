"""The UAPI codec: what `wg` sends is understood, what we say can be read back, and nonsense is one kind of error."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PLAIN, PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus, Way
from warren.proto import uapi, uapi_answers

KEY = "01" * 32
ZONES = {"eth0": 7, "3": 3}


def zone_index(zone: str) -> int:
    try:
        return ZONES[zone]
    except KeyError:
        raise OSError(zone) from None


def change(text: str) -> TunnelChange:
    request = uapi.unpack_request_untrusted(("set=1\n" + text).strip("\n").encode(), zone_index)
    assert isinstance(request, uapi.SetRequest)
    return request.change


def test_the_example_of_the_specification_is_understood() -> None:
    # https://www.wireguard.com/xplatform/, "Example Dialog"
    parsed = change(
        "private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a\nfwmark=0\nlisten_port=12912\n"
        "replace_peers=true\npublic_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33\n"
        "preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\nreplace_allowed_ips=true\n"
        "allowed_ip=192.168.4.4/32\nendpoint=[abcd:23::33%3]:51820\n"
        "public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58\nendpoint=5.152.198.39:51820\n"
        "replace_allowed_ips=true\nallowed_ip=192.168.4.6/32\nallowed_ip=192.168.4.10/32\npersistent_keepalive_interval=111\n"
    )
    assert parsed.private_key == PrivateKey.from_hex("e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a")
    assert (parsed.fwmark, parsed.listen_port, parsed.replace_peers) == (0, 12912, True)
    first, second = parsed.peers
    assert first.endpoint == TransportAddress(ip_address("abcd:23::33"), 51820, 3)
    assert first.preshared_key == PresharedKey.from_hex(
        "188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52"
    )
    assert first.persistent_keepalive_s is None
    assert second.allowed_ips == (ip_network("192.168.4.6/32"), ip_network("192.168.4.10/32"))
    assert second.persistent_keepalive_s == 111
    assert second.replace_allowed_ips


def test_an_allowed_ip_with_a_minus_is_removed() -> None:
    (peer,) = change(f"public_key={KEY}\nallowed_ip=-10.0.0.0/8\nallowed_ip=fd00::/8\n").peers
    assert peer.removed_allowed_ips == (ip_network("10.0.0.0/8"),)
    assert peer.allowed_ips == (ip_network("fd00::/8"),)


def test_replace_allowed_ips_forgets_those_named_before_it() -> None:
    (peer,) = change(
        f"public_key={KEY}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=10.9.0.0/16\n"
    ).peers
    assert peer.allowed_ips == (ip_network("10.9.0.0/16"),)


def test_a_way_and_a_pin_are_keys_of_a_peer() -> None:
    (peer,) = change(
        f"public_key={KEY}\nendpoint=192.0.2.1:3478\nsource=192.0.2.7\ninterface=3\nchannel=16385\nsocket=2\npinned=true\n"
    ).peers
    assert peer.way == Way(ip_address("192.0.2.7"), interface=3, channel=0x4001, socket=2)
    assert peer.pinned is True
    (peer,) = change(f"public_key={KEY}\nendpoint=192.0.2.1:3478\nchannel=0\npinned=false\n").peers
    assert (peer.way, peer.pinned) == (PLAIN, False)
    (peer,) = change(f"public_key={KEY}\nendpoint=192.0.2.1:3478\n").peers
    assert (peer.way, peer.pinned) == (None, None)


def test_a_rotation_is_one_request() -> None:
    parsed = change(f"private_key={KEY}\nkeep_sessions=true\npublic_key={'02' * 32}\nrenamed_from={'03' * 32}\n")
    assert parsed == TunnelChange(
        PrivateKey(b"\1" * 32),
        keep_sessions=True,
        peers=(PeerChange(PublicKey(b"\2" * 32), renamed_from=PublicKey(b"\3" * 32)),),
    )


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "unknown_key=1",
        "private_key=",
        "private_key=zz",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=1e3",
        "fwmark=4294967296",
        "fwmark=0x10",
        "replace_peers=false",
        "public_key=00",
        f"public_key={KEY}\nremove=1",
        f"public_key={KEY}\nendpoint=host:1",
        f"public_key={KEY}\nendpoint=1.2.3.4",
        f"public_key={KEY}\nendpoint=::1:51820",
        f"public_key={KEY}\nendpoint=[1.2.3.4]:1",
        f"public_key={KEY}\nendpoint=[fe80::1%nope]:1",
        f"public_key={KEY}\nendpoint=1.2.3.4:99999",
        f"public_key={KEY}\nallowed_ip=10.0.0.0/33",
        f"public_key={KEY}\nallowed_ip=10.0.0.1",
        f"public_key={KEY}\npersistent_keepalive_interval=70000",
        f"public_key={KEY}\nprotocol_version=2",
        f"public_key={KEY}\nsource=host",
        f"public_key={KEY}\nsource=192.0.2.300",
        f"public_key={KEY}\ninterface=2147483648",
        f"public_key={KEY}\nchannel=65536",
        f"public_key={KEY}\nchannel=0x4000",
        f"public_key={KEY}\nsocket=-1",
        f"public_key={KEY}\npinned=1",
        "pinned=true",
        "channel=16384",
        f"public_key={KEY}\nlisten_port=1",
        f"public_key={KEY}\nkeep_sessions=true",
        f"public_key={KEY}\nrenamed_from=00",
        f"renamed_from={KEY}",
        "keep_sessions=1",
    ],
)
def test_an_unusable_line_is_named_and_its_value_is_not_quoted(line: str) -> None:
    with pytest.raises(uapi.InvalidRequest, match=r"^line \d+: ") as caught:
        change(line)
    value = line.rpartition("=")[2]
    assert len(value) < 10 or value not in str(caught.value)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_request_or_invalid(data: bytes) -> None:
    for text in (data, b"set=1\n" + data, b"set=1\npublic_key=" + KEY.encode() + b"\n" + data):
        try:
            uapi.unpack_request_untrusted(text, zone_index)
        except uapi.InvalidRequest:
            continue


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    for text in (data, data + b"\nerrno=0", b"public_key=" + KEY.encode() + b"\n" + data + b"\nerrno=0"):
        try:
            uapi_answers.unpack_status_untrusted(uapi_answers.unpack_answer_untrusted(text), zone_index)
        except MalformedPacket:
            continue


keys = st.binary(min_size=32, max_size=32)
addresses = st.builds(TransportAddress, st.ip_addresses(), st.integers(0, 65535))
ways = st.builds(
    Way,
    source=st.none() | st.ip_addresses(),
    interface=st.integers(0, 2**31 - 1),
    channel=st.integers(0, 0xFFFF),
    socket=st.integers(0, 0xFFFF),
)
networks = st.builds(
    lambda a, p: ip_network((a, p % (a.max_prefixlen + 1)), strict=False), st.ip_addresses(), st.integers(0, 128)
)
peers = st.builds(
    PeerChange,
    public_key=st.builds(PublicKey, keys),
    remove=st.booleans(),
    update_only=st.booleans(),
    preshared_key=st.none() | st.builds(PresharedKey, keys),
    endpoint=st.none() | addresses,
    way=st.none() | st.just(PLAIN) | ways,
    pinned=st.none() | st.booleans(),
    persistent_keepalive_s=st.none() | st.integers(0, 65535),
    replace_allowed_ips=st.booleans(),
    allowed_ips=st.lists(networks, max_size=4).map(tuple),
    removed_allowed_ips=st.lists(networks, max_size=2).map(tuple),
    renamed_from=st.none() | st.builds(PublicKey, keys),
)


@given(
    st.builds(
        TunnelChange,
        private_key=st.none() | st.builds(PrivateKey, keys),
        listen_port=st.none() | st.integers(0, 65535),
        fwmark=st.none() | st.integers(0, 2**32 - 1),
        replace_peers=st.booleans(),
        keep_sessions=st.booleans(),
        peers=st.lists(peers, max_size=4).map(tuple),
    )
)
def test_a_change_survives_the_wire(original: TunnelChange) -> None:
    packed = uapi.pack_change(original)
    assert packed.endswith(b"\n\n")
    assert uapi.unpack_request_untrusted(packed[:-2], zone_index) == uapi.SetRequest(original)


@given(
    st.builds(
        TunnelStatus,
        private_key=st.none() | st.builds(PrivateKey, keys),
        listen_port=st.integers(0, 65535),
        fwmark=st.integers(0, 2**32 - 1),
        peers=st.lists(
            st.builds(
                PeerStatus,
                public_key=st.builds(PublicKey, keys),
                preshared_key=st.none() | st.builds(PresharedKey, keys.filter(any)),
                endpoint=st.none() | addresses,
                allowed_ips=st.lists(networks, max_size=4).map(tuple),
                persistent_keepalive_s=st.integers(0, 65535),
                last_handshake_ns=st.integers(0, 2**62),
                tx_bytes=st.integers(0, 2**63),
                rx_bytes=st.integers(0, 2**63),
                handshake_rtt_ns=st.integers(0, 2**40),
                way=st.just(PLAIN) | ways,
                pinned=st.booleans(),
            ),
            max_size=4,
        ).map(tuple),
    )
)
def test_a_status_survives_the_wire(original: TunnelStatus) -> None:
    packed = uapi_answers.pack_status(original)
    assert (
        uapi_answers.unpack_status_untrusted(uapi_answers.unpack_answer_untrusted(packed[:-2]), zone_index) == original
    )


def test_statistics_and_errno_are_answers_too() -> None:
    answer = uapi_answers.unpack_answer_untrusted(uapi_answers.pack_statistics({"b": 2, "a": 1})[:-2])
    assert answer == uapi_answers.Answer(0, (("a", "1"), ("b", "2")))
    assert uapi_answers.unpack_answer_untrusted(uapi_answers.pack_errno(22)[:-2]).errno == 22


def test_the_other_requests_are_told_apart() -> None:
    assert uapi.unpack_request_untrusted(b"get=1", zone_index) == uapi.GetRequest()
    assert uapi.unpack_request_untrusted(b"statistics=1", zone_index) == uapi.StatisticsRequest()
    with pytest.raises(uapi.InvalidRequest):
        uapi.unpack_request_untrusted(b"get=2", zone_index)
