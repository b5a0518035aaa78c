"""Python's garbage collector, set for processes that make many small objects and free them at once."""

from __future__ import annotations

import gc

__all__ = ["tune_gc"]

# Containers made and not yet freed before the youngest generation is looked through. By default
# 700: a batch of events has tens of thousands, and each look finds nothing.
THRESHOLD = 50_000


def tune_gc() -> None:
    """Leave alone what was loaded at the start, and look for cycles seldom: a third of the drain's time
    went into collections that freed nothing. Call it once everything is imported, and before any fork
    (https://docs.python.org/3/library/gc.html#gc.freeze)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD, 20, 100)
