"""pyroute2 is imported as far as it is used, and whole for whoever wants all of it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from warren.linux.pyroute import iproute_class

found = iproute_class()
assert "pyroute2" not in sys.modules, "all of it was imported"
assert "pyroute2.ndb.main" not in sys.modules
assert iproute_class() is found
from pyroute2.netlink.exceptions import NetlinkError
assert "pyroute2" not in sys.modules, "all of it was imported for an error"
import pyroute2
assert pyroute2.AsyncIPRoute is found
assert pyroute2.NetlinkError is NetlinkError
assert iproute_class() is found
"""


def test_only_what_is_used_is_imported_and_the_whole_package_has_the_same_class() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
