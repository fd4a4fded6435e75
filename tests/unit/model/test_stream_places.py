from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.model.stream_places import Place, Target, check_domain, parse_listen, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost:80", Target("localhost", 80)),
        ("DB.lan.:5432", Target("DB.lan.", 5432)),
        ("10.0.0.7:1", Target("10.0.0.7", 1)),
        ("[2001:DB8:0::7]:443", Target("2001:db8::7", 443)),
        ("unix:/run/a:b/c.sock", Target("", 0, "/run/a:b/c.sock")),
        ("unix:/" + "x" * 106, Target("", 0, "/" + "x" * 106)),
        ("1-2.example:80", Target("1-2.example", 80)),
    ],
)
def test_a_target_is_read(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "say HOST:PORT"),
        ("80", "say 127.0.0.1:80 for the serving member itself"),
        (":80", "say 127.0.0.1:80 for the serving member itself"),
        ("h:", "a port is 1 to 65535"),
        ("h:0", "a port is 1 to 65535"),
        ("h:080", "a port is 1 to 65535"),
        ("h:65536", "a port is 1 to 65535"),
        ("h:٨٠", "a port is 1 to 65535"),
        ("h:80\n", "a port is 1 to 65535"),
        ("h\n:80", "say HOST:PORT"),
        ("a b:80", "say HOST:PORT"),
        ("-a:80", "say HOST:PORT"),
        ("x" * 254 + ":80", "say HOST:PORT"),
        ("2001:db8::7:80", "put the IPv6 address in brackets"),
        ("[2001:db8::7:80", "put the IPv6 address in brackets"),
        ("[10.0.0.1]:80", "there is no IPv6 address in the brackets"),
        ("[fe80::1%eth0]:80", "an address of one link only"),
        ("[::ffff:10.0.0.1]:80", "say the IPv4 address 10.0.0.1 itself"),
        ("127.1:80", "127.1 is no IPv4 address"),
        ("2130706433:80", "2130706433 is no IPv4 address"),
        ("0x7f.1:80", r"0x7f.1 is no IPv4 address"),
        ("127.0.0.0x1:80", "is no IPv4 address"),
        ("010.0.0.1:80", "is no IPv4 address"),
        ("127.0.0.1.:80", "is no IPv4 address"),
        ("0.0.0.0:80", "is nobody's address"),
        ("[::]:80", "is nobody's address"),
        ("unix:relative", "say HOST:PORT"),
        ("unix:/a b", "is no Unix socket"),
        ("unix:/" + "x" * 107, "a path has 107 characters at most"),
        ("http://h:80", "say HOST:PORT, without http://"),
    ],
)
def test_what_is_no_target_is_refused_with_a_word_on_how_to_write_it(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("80", Place(ip_address("127.0.0.1"), 80)),
        ("localhost:80", Place(ip_address("127.0.0.1"), 80)),
        ("*:443", Place(None, 443)),
        ("192.0.2.1:53", Place(ip_address("192.0.2.1"), 53)),
        ("0.0.0.0:53", Place(ip_address("0.0.0.0"), 53)),  # noqa: S104 - written, not bound
        ("[2001:DB8::1]:53", Place(ip_address("2001:db8::1"), 53)),
        ("unix:/run/x", Place(None, 0, "/run/x")),
    ],
)
def test_a_place_to_listen_is_read(text: str, place: Place) -> None:
    assert parse_listen(text) == place
    assert parse_listen(str(place)) == place


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a port is 1 to 65535"),
        ("web", "a port is 1 to 65535"),
        (":80", "say 80 for this host alone, or \\*:80 for everybody"),
        ("web:80", "is no place to listen: say PORT, ADDRESS:PORT"),
        ("::1:80", "put the IPv6 address in brackets"),
        ("[fe80::1]:80", "nothing can listen at fe80::1"),
        ("[fe80::1%eth0]:80", "an address of one link only"),
        ("[ff02::1]:80", "nothing can listen at ff02::1"),
        ("224.0.0.1:80", "nothing can listen at 224.0.0.1"),
        ("[::ffff:127.0.0.1]:80", "say the IPv4 address 127.0.0.1 itself"),
        ("127.1:80", "127.1 is no IPv4 address"),
        ("*:0", "a port is 1 to 65535"),
        ("unix:x", "is no place to listen|a port is 1 to 65535"),
        (f"unix:/{'x' * 107}", "is no Unix socket: a path has 107 characters at most"),
    ],
)
def test_what_is_no_place_to_listen_is_refused_with_a_word_on_how_to_write_it(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_listen(text)


@given(st.text(max_size=40) | st.text(st.sampled_from("[]:.%*/0129afxunixlocalhost-_"), max_size=40))
def test_whatever_is_written_is_read_the_same_again_or_refused(text: str) -> None:
    for parse in (parse_target, parse_listen):
        with contextlib.suppress(ValueError):
            found = parse(text)
            assert parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "A.example", "a..b", ".", "a_b", "*.example", "1.2.3.4", "a.0x7f", "a.example\n"])
def test_what_no_client_can_ask_for_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match="is no domain"):
        check_domain(text)
