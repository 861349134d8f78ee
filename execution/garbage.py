"""Python's garbage collector, told what this process is like.

What was loaded at the start stays, and an order's own objects are nearly all freed by reference counting, so there is little to find.
With Python's defaults a collector's full passes walk all of ccxt and every order at hand: pauses above 100 ms in the middle of a
burst, and a fifth of all CPU time (measured with `make bench`).
"""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 2_000, 5, 200
"""In a burst nearly all new objects survive a pass, at about 0.6 us each: these keep a pass over the young at 1 ms, over the middle
ones at 5 ms, and leave one over all for every two million new objects."""


def settle() -> None:
    """Take what exists now out of every later pass, and make passes rarer. To be called once, when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
