"""Our processes and what is prepared before them: the declarative table of the local stack."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLAN", "Plan", "ProcessSpec", "Step"]

CELERY = ("{python}", "-m", "celery", "-A", "eventsite")
# One machine, few workers: what they would tell each other only costs CPU and Redis round trips.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process. In its command `{python}` and `{port}` stand for this interpreter and its port.

    The web process listens on PORT, every other one serves /health and /metrics on METRICS_PORT.
    """

    name: str
    command: tuple[str, ...]
    health: str = "/health"
    web: bool = False
    ready_within: float = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Step:
    """One preparation command. `on_new_log`: what it takes besides when the Kafka log is a new one
    under an older database; None: such a log changes nothing for it, so it is not repeated then."""

    command: tuple[str, ...]
    on_new_log: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.command[-1] if self.command[-1][:1] != "-" else self.command[-2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs on top of the servers."""

    processes: tuple[ProcessSpec, ...] = ()
    preparation: tuple[Step, ...] = ()


PLAN = Plan(
    preparation=(Step(("{python}", "manage.py", "prepare"), on_new_log=("--new-log",)),),
    processes=(
        ProcessSpec(
            name="web",
            command=(
                *(
                    "{python}",
                    "manage.py",
                    "run_web",
                    "--application",
                    "eventsite.asgi:application",
                ),
                *("--port", "{port}"),
            ),
            health="/health/ready",
            web=True,
        ),
        ProcessSpec(
            name="worker-outbox",
            command=(*CELERY, "worker", "-Q", "outbox", "-c", "1", "-n", "outbox@%h", *QUIET),
        ),
        ProcessSpec(
            name="worker-effects",
            command=(
                *(*CELERY, "worker", "-Q", "analytics,orders,probe,upkeep"),
                *("-c", "2", "-n", "effects@%h", *QUIET),
            ),
        ),
        ProcessSpec(name="beat", command=(*CELERY, "beat")),
        ProcessSpec(name="bridge", command=("{python}", "manage.py", "run_bridge")),
    ),
)
