"""What callers wait for, who may have gone away meanwhile."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["tell"]

Result = TypeVar("Result")


def tell(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    """Its result or its exception, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
