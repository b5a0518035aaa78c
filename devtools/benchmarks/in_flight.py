"""`python -m devtools.benchmarks.in_flight`: ten thousand requests at once, and what a fault leaves of them.

A stack of its own with only the web process; the faults of eventsite/tests/test_in_flight.py, and
all of them at once. Exit code 1 if anything answered is not stored once and whole.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable

from devtools.localstack import LocalStack
from devtools.localstack.processes import PLAN
from devtools.localstack.unit import Unit
from devtools.testing.in_flight import account_of, fire, raise_file_limit


def main() -> int:
    """0 if every account is right."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.benchmarks.in_flight", description=__doc__
    )
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    raise_file_limit(options.requests + 1000)
    faults = 0
    with LocalStack.ephemeral(own_servers=True, kafka="tansu", plan=PLAN.only("web")) as stack:
        web, postgres = stack.process("web"), stack.server("postgres")
        scenarios: dict[str, tuple[float, Callable[[], None]]] = {
            "nothing": (0.0, lambda: None),
            "hang-up": (0.5, lambda: None),
            "postgres": (0.0, lambda: _restart(postgres)),
            "web": (0.0, lambda: _restart(web)),
            "all": (0.2, lambda: _restart(postgres, web)),
        }
        for name, (hanging_up, fault) in scenarios.items():
            begin = time.perf_counter()
            volley = asyncio.run(
                fire(
                    stack.base_url,
                    run=name,
                    requests=options.requests,
                    hanging_up=hanging_up,
                    fault=fault,
                )
            )
            _print(f"{name}: {volley}, {time.perf_counter() - begin:.1f} s")
            asyncio.run(fire(stack.base_url, run=f"after {name}", requests=20))  # nothing under way
            account = account_of(stack.env["DATABASE_URL"], name, volley)
            _print(f"  {account}, unexpected answers: {volley.unexpected[:3]}")
            faults += account.faults + len(volley.unexpected)
    _print("every answered order exists once and whole" if not faults else f"{faults} FAULTS")
    return int(faults > 0)


def _restart(*units: Unit) -> None:
    for unit in units:
        unit.kill()
    for unit in units:
        unit.start()
        unit.wait_ready()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
