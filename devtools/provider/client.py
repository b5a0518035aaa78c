"""The provider as tests, chaos and the demo use it: start it, set its rules, ask what arrived."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from devtools.provider.server import AnswerRule, Arrival

__all__ = ["ProviderProcess", "provider_process"]

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 10.0

_arrivals = msgspec.json.Decoder(list[Arrival]).decode


@dataclass(frozen=True, slots=True)
class ProviderProcess:
    """One that runs."""

    child: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Where messages are posted to."""
        return f"http://127.0.0.1:{self.port}/send"

    def rules(self, *rules: AnswerRule) -> None:
        """What is done with what comes from now on; without any everything is taken. What was held is
        answered."""
        body = msgspec.json.encode({"rules": rules})
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", data=body, method="PUT"
        )
        urllib.request.urlopen(request, timeout=SECONDS).close()  # noqa: S310

    def arrivals(self) -> list[Arrival]:
        """Everything that has arrived, the oldest first."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/arrivals", timeout=SECONDS
        ) as answer:
            return _arrivals(answer.read())

    def kill(self) -> None:
        """End it at once."""
        self.child.kill()
        self.child.wait(SECONDS)


@contextmanager
def provider_process(
    *, port: int = 0, log: str = "", forget: bool = False
) -> Iterator[ProviderProcess]:
    """A provider until the end of the block; `forget`: its arrivals are in the log alone."""
    command = [sys.executable, "-m", "devtools.provider", "--port", str(port), "--log", log]
    command += ["--forget"] if forget else []
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as child:  # noqa: S603
        try:
            assert child.stdout is not None
            yield ProviderProcess(child, int(child.stdout.readline()))
        finally:
            child.kill()
