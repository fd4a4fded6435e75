"""The targets of ``make fuzz``: each has seeds, survives them and some damage, and no decoder is left out."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from fuzz.run import SEEDS
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "check_envelope_untrusted": "part of unpacking an envelope",
    "decode_untrusted": "every one of them; the coordinator's is of HTTP bodies, which its own tests fuzz",
    "external_untrusted": "part of natpmp, pcp and upnp_xml",
    "features_of_untrusted": "part of turn_client",
    "granted_untrusted": "part of turn_client",
    "lifetime_of_untrusted": "part of turn_server",
    "lifetime_untrusted": "part of natpmp and pcp",
    "mapped_untrusted": "part of stun_discovery",
    "path_untrusted": "part of ssdp",
    "place_of_untrusted": "of the operator's configuration",
    "unpack_head_untrusted": "part of ssdp and upnp_http",
    "permit_untrusted": "part of turn_server",
    "bind_untrusted": "part of turn_server",
}


_FUNCTION = re.compile(r"^def ([a-z]\w*_untrusted)\(", re.MULTILINE)


def decoders(package: Path) -> set[str]:
    """The functions of modules that decode bytes from outside."""
    return {name for path in package.rglob("*.py") for name in _FUNCTION.findall(path.read_text(encoding="utf-8"))}


def test_every_decoder_is_fuzzed() -> None:
    source = (ROOT / "fuzz/targets.py").read_text(encoding="utf-8")
    attributes = set(_FUNCTION.findall((ROOT / "src/warren/proto/stun/attributes.py").read_text(encoding="utf-8")))
    found = decoders(ROOT / "src/warren")
    assert len(found) > 40
    missing = {name for name in found - attributes if name not in source and name not in ELSEWHERE}
    assert missing == set(), "name them in fuzz/targets.py"


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_survives_its_seeds_and_damage_to_them(name: str) -> None:
    seeds = sorted((SEEDS / name).iterdir())
    assert seeds
    damage = random.Random(name)
    for seed in seeds:
        whole = seed.read_bytes()
        TARGETS[name](whole)
        for _ in range(8):
            data = bytearray(whole[: damage.randint(0, len(whole))] if damage.random() < 0.3 else whole)
            for _ in range(min(len(data), damage.randint(1, 3))):
                data[damage.randrange(len(data))] = damage.randrange(256)
            TARGETS[name](bytes(data))
