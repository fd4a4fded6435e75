"""A scene with a bit of everything."""

from __future__ import annotations

import tomllib

from warren.lab.scene_plan import Plan, plan
from warren.lab.scene_reader import read_scene

TEXT = """
[server.one]
[server.dc]
families = "4"
relay = "warren"
[site.home]
kind = "port-restricted"
hosts = ["alice", "laptop"]
[site.campus]
kind = "open"
hosts = ["bob"]
link = { delay_s = 0.5 }
[site.six]
kind = "ipv6-only"
hosts = ["laptop", "carol"]
[coordinator]
server = "one"
[network.a]
members = ["alice"]
[network.b]
members = ["alice", "bob", "one"]
"""


def planned() -> Plan:
    return plan(read_scene("example", tomllib.loads(TEXT)))
