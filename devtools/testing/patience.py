"""How long tests wait for what must come."""

from __future__ import annotations

__all__ = ["PATIENCE"]

# Seconds after which a test gives up. Nothing promises this bound: a busy machine, with four test
# processes on two cores, is late for everything. What a contract promises has a bound of its own in
# its test. It leaves time for a chunk that is sent again after 10, 20 and 40 s.
PATIENCE = 150.0
