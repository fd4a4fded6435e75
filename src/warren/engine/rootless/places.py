"""What a rootless node has in its run directory, which is its user's alone."""

from __future__ import annotations

from typing import Final

SOCKET_NAME: Final = "nest.sock"
"""Where the helper listens."""
DATA_PLANES: Final = "wireguard"
"""The directory of the data planes' sockets."""
