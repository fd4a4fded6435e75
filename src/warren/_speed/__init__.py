"""Compiled twins of the hot functions in :mod:`warren.proto`; :mod:`warren.proto.datapath` chooses.

Building them is optional (hatch_build.py). WARREN_PURE=1 in the environment makes this package unimportable, which is
how the pure twins get their turn where both are installed.
"""

from __future__ import annotations

import os

if os.environ.get("WARREN_PURE") == "1":
    raise ImportError("WARREN_PURE=1 asks for the pure Python data path")
