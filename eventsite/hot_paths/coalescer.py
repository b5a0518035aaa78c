"""Many requests, one transaction: natural batching without a timer.

A command that comes while nothing is being stored goes at once and alone; those that come while
a batch is being stored wait for it and are the next batch. So a single caller waits for nobody,
and under load the batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from eventsite.hot_paths import metrics
from outbox.services import NotStored, OutcomeUnknown

__all__ = ["Coalescer", "Refused"]

Command = TypeVar("Command")
Result = TypeVar("Result")


class Refused(Exception):
    """The command itself cannot be stored, and nothing of it is; the cause says why."""


@dataclass(slots=True)
class _Waiting(Generic[Command, Result]):
    command: Command
    future: asyncio.Future[Result]
    expires: float  # on the loop's clock


class Coalescer(Generic[Command, Result]):
    """Submits commands to `perform` in batches, one batch at a time, on a thread of its own.

    `perform` takes commands and returns their results in the same order; it raises NotStored or
    OutcomeUnknown (everybody in the batch is told, nothing is tried again) or anything else before
    COMMIT (the batch is halved until only the culprit is left). At most `max_batch` commands in a
    batch, `max_waiting` in the queue, each at most `patience` seconds in it. Belongs to one event
    loop.
    """

    def __init__(
        self,
        perform: Callable[[Sequence[Command]], Sequence[Result]],
        *,
        name: str,
        max_batch: int = 256,
        max_waiting: int = 4096,
        patience: float = 10.0,
    ) -> None:
        self._perform = perform
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._patience = patience
        self._waiting: deque[_Waiting[Command, Result]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False
        self._batch = metrics.BATCH.labels(name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"flush-{name}")

    async def submit(self, command: Command) -> Result:
        """The command's result, after COMMIT.

        Raises NotStored (also when the queue is full, the wait was too long or the process is
        stopping), OutcomeUnknown or Refused. A caller that goes away changes nothing for the
        others, and its command may still be stored.
        """
        if self._closed:
            raise NotStored("This process is stopping.")
        if len(self._waiting) >= self._max_waiting:
            raise NotStored("Too many requests are waiting.")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(command, loop.create_future(), loop.time() + self._patience)
        self._waiting.append(waiting)
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        result: Result = await waiting.future
        return result

    async def close(self) -> None:
        """Store what is waiting, then take no more."""
        self._closed = True
        if self._flusher is not None:
            await self._flusher
        self._thread.shutdown(wait=False)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch(loop.time()):
            commands = [waiting.command for waiting in batch]
            self._batch.observe(len(commands))
            outcomes = await loop.run_in_executor(self._thread, self._outcomes, commands)
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _tell(waiting.future, outcome)
        self._flusher = None

    def _next_batch(self, now: float) -> list[_Waiting[Command, Result]]:
        batch: list[_Waiting[Command, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if waiting.expires < now:
                _tell(waiting.future, NotStored("The request waited too long."))
            elif not waiting.future.done():
                batch.append(waiting)
        return batch

    def _outcomes(self, commands: Sequence[Command]) -> list[Result | Exception]:
        try:
            results = list(self._perform(commands))
        except (NotStored, OutcomeUnknown) as error:
            return [error] * len(commands)
        except Exception as error:  # noqa: BLE001  (whoever it concerns is told)
            if len(commands) == 1:
                refused = Refused()
                refused.__cause__ = error
                return [refused]
            half = len(commands) // 2
            return [*self._outcomes(commands[:half]), *self._outcomes(commands[half:])]
        if len(results) != len(commands):
            lost = OutcomeUnknown(f"{len(commands)} commands came back as {len(results)} results.")
            return [lost] * len(commands)
        return [*results]


def _tell(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if future.done():  # the caller has gone away
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
