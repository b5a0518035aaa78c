"""Bounds of the API that the wiring declares and the endpoints keep."""

from __future__ import annotations

__all__ = ["MAX_BATCH_BYTES"]

MAX_BATCH_BYTES = 8 * 1024 * 1024
