"""pyroute2's rtnetlink socket, without the rest of pyroute2.

Its package imports all that it has as soon as any of it is imported: two thirds of the time are for what is not used
here, a tenth of the start of an agent. So ``pyroute2.iproute.linux`` is imported below a stand-in for the package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "pyroute2"


def iproute_class() -> Any:
    """``pyroute2.AsyncIPRoute``. Whoever imports pyroute2 itself afterwards gets all of it, and the same class."""
    spec = find_spec(_PACKAGE)
    if _PACKAGE not in sys.modules and spec is not None:
        stand_in = ModuleType(_PACKAGE)
        stand_in.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[_PACKAGE] = stand_in
        try:
            return import_module(f"{_PACKAGE}.iproute.linux").AsyncIPRoute
        finally:
            if sys.modules.get(_PACKAGE) is stand_in:
                del sys.modules[_PACKAGE]
    return import_module(f"{_PACKAGE}.iproute.linux").AsyncIPRoute
