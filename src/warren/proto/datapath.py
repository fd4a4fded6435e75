"""The hot path, from whichever twin is there: compiled if it was built, pure Python otherwise, with identical results.

The environment variable WARREN_PURE=1 chooses the pure one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warren.proto.ip.coalesce import Coalescer
    from warren.proto.ip.segment import split
    from warren.proto.wireguard.transport import OpeningKey, SealingKey

    COMPILED: bool
else:
    try:
        from warren._speed.coalesce import Coalescer
        from warren._speed.segment import split
        from warren._speed.transport import OpeningKey, SealingKey

        COMPILED = True
    except ImportError:
        from warren.proto.ip.coalesce import Coalescer
        from warren.proto.ip.segment import split
        from warren.proto.wireguard.transport import OpeningKey, SealingKey

        COMPILED = False

__all__ = ["COMPILED", "Coalescer", "OpeningKey", "SealingKey", "split"]
