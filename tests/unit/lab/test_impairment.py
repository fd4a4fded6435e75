from __future__ import annotations

import pytest

from warren.errors import UsageError
from warren.lab.impairment import Impairment


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"loss": 1.1}, "loss"),
        ({"duplicate": -0.1}, "duplicate"),
        ({"delay_s": -1}, "delay_s"),
        ({"reorder_depth": 0}, "reorder_depth"),
        ({"rate_bps": 0}, "rate_bps"),
        ({"queue_packets": 0}, "queue_packets"),
        ({"mtu_drop": 0}, "mtu_drop"),
        ({"loss": 0.1, "loss_burst": 0.5}, "loss_burst"),
        ({"loss": 0.9, "loss_burst": 2}, "loss_burst"),
        ({"loss": float("nan")}, "loss"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(values: dict[str, float], names: str) -> None:
    with pytest.raises(UsageError, match=f"impairment {names}="):
        Impairment(**values)  # type: ignore[arg-type]


def test_an_impairment_reads_as_what_is_wrong_with_the_link() -> None:
    assert str(Impairment()) == "none"
    assert str(Impairment(loss=0.2, delay_s=0.02)) == "loss=0.2, delay_s=0.02"
