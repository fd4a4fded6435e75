from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from warren.model.parts import canonical_address, canonical_network, check_selector, port_range


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-f:.%/]{1,40}"))
@example("fd00::%1/64")
@example("10.0.0.0/8\n")
def test_text_is_an_address_or_prefix_in_one_spelling_only(text: str) -> None:
    for parse in (canonical_network, canonical_address):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert str(parsed) == text
        assert "%" not in text


@given(st.text(max_size=40))
def test_selectors_and_ports_are_good_or_a_value_error(text: str) -> None:
    for parse in (check_selector, port_range):
        try:
            parse(text)
        except ValueError:
            continue
        assert text.isascii()
        assert text.isprintable()
