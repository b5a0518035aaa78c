"""Our processes and what is prepared before them: the declarative table of the local stack."""

from __future__ import annotations

from dataclasses import dataclass

from eventsite.roles import ROLES

__all__ = ["ORDERS", "PLAN", "SERVERS", "Plan", "PreparationStep", "ProcessSpec"]

CELERY = ("{python}", "-m", "celery", "-q", "-A", "eventsite")  # -q: no banner in the log


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process. In its command `{python}` and `{port}` stand for this interpreter and its port.

    The web process listens on PORT, every other one serves /health and /metrics on METRICS_PORT.
    """

    name: str
    command: tuple[str, ...]
    health: str = "/health"
    web: bool = False
    ready_within: float = 180.0  # seconds; a few, but many times that on a machine with other work
    needs_rabbitmq: bool = False  # left out where the machine has none


@dataclass(frozen=True, slots=True)
class PreparationStep:
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
    preparation: tuple[PreparationStep, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of its processes."""
        return tuple(spec.name for spec in self.processes)

    @property
    def pipeline(self) -> tuple[str, ...]:
        """Of those on the way from a request to the last effect: all but the relay."""
        return tuple(spec.name for spec in self.processes if not spec.needs_rabbitmq)

    def only(self, *names: str) -> Plan:
        """The same with these of its processes."""
        chosen = tuple(spec for spec in self.processes if spec.name in names)
        assert len(chosen) == len(names), names
        return Plan(processes=chosen, preparation=self.preparation)


PLAN = Plan(
    preparation=(PreparationStep(("{python}", "manage.py", "prepare"), on_new_log=("--new-log",)),),
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
        *(
            ProcessSpec(
                name=role.process, command=("{python}", "manage.py", "run_worker", role.name)
            )
            for role in ROLES.values()
        ),
        ProcessSpec(name="beat", command=(*CELERY, "beat")),
        ProcessSpec(name="bridge", command=("{python}", "manage.py", "run_bridge")),
        ProcessSpec(
            name="relay",
            command=("{python}", "manage.py", "run_rabbitmq_relay", "--create-topic", "12"),
            needs_rabbitmq=True,
        ),
    ),
)

# What an order needs on its way.
ORDERS = PLAN.only("web", "worker-outbox", "worker-effects", "beat", "bridge")

# The servers with the tables and topics on them, for processes that run in terminals of their own.
SERVERS = Plan(preparation=PLAN.preparation)
