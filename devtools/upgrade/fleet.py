"""The processes of one side on the servers of a stack."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial

from devtools.localstack import LocalStack, Unit
from devtools.localstack.errors import StartFailed
from devtools.localstack.ports import Ports
from devtools.localstack.probes import http_answers
from devtools.localstack.processes import ProcessSpec
from devtools.localstack.spawn import run
from devtools.localstack.unit import Program, stop_all
from devtools.upgrade.release import EarlierRelease

__all__ = ["Fleet"]

COMMAND_SECONDS = 180.0


class Fleet:
    """Starts and ends processes of a release, by their names in its plan.

    Two fleets of one stack share servers, and neither ports nor logs nor metrics.
    """

    def __init__(self, stack: LocalStack, release: EarlierRelease, ports: Ports) -> None:
        self.release = release
        self._stack = stack
        self._environment = {**stack.env, **release.settings}
        self.units = {spec.name: self._unit(spec, ports) for spec in release.plan.processes}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its processes."""
        return tuple(self.units)

    @property
    def behind_web(self) -> tuple[str, ...]:
        """Workers, beat and bridge."""
        return tuple(spec.name for spec in self.release.plan.processes if not spec.web)

    @property
    def web(self) -> str:
        """Name of the web process."""
        [name] = (spec.name for spec in self.release.plan.processes if spec.web)
        return name

    @property
    def address(self) -> str:
        """Base URL of its web process."""
        return f"http://127.0.0.1:{self.units[self.web].program.port}"

    def start(self, names: Sequence[str]) -> None:
        """Start these, and wait until they are ready. Raises StartFailed."""
        for name in names:
            self.units[name].start()
        for name in names:
            self.units[name].wait_ready()

    def stop(self, names: Sequence[str]) -> None:
        """End these in their own way."""
        stop_all([self.units[name] for name in names])

    def kill(self, names: Sequence[str]) -> None:
        """SIGKILL, as on a machine that is lost while it is replaced."""
        for name in names:
            unit = self.units[name]
            unit.wanted = False
            unit.kill()

    def prepare(self) -> None:
        """What a deployment of this release runs first. Raises StartFailed."""
        for step in self.release.plan.preparation:
            self.run(step.command)

    def manage(self, *arguments: str) -> str:
        """What a `manage.py` command of this release says. Raises StartFailed."""
        return self.run(("{python}", "manage.py", *arguments))

    def run(self, command: Sequence[str]) -> str:
        """A command to its end. Raises StartFailed when it fails."""
        words = [part.format(python=self.release.python) for part in command]
        name = f"{self.release.name}-{' '.join(words[2:4]).replace('/', '_')}"
        log = self._stack.state.log(f"{self.release.name}-commands")
        code, output = run(
            words,
            environment=self._environment,
            directory=self.release.folder,
            log=log,
            seconds=COMMAND_SECONDS,
        )
        if code:
            raise StartFailed(name, f"exit code {code}", log)
        return output

    def _unit(self, spec: ProcessSpec, ports: Ports) -> Unit:
        name = f"{self.release.name}-{spec.name}"
        port = ports.choose(name)
        metrics = self._stack.state.root / "metrics" / name
        own = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "SERVICE_NAME": name}
        own["PORT" if spec.web else "METRICS_PORT"] = str(port)

        def empty() -> None:
            shutil.rmtree(metrics, ignore_errors=True)
            metrics.mkdir(parents=True)

        health = f"http://127.0.0.1:{port}{spec.health}"
        return Unit(
            Program(
                name=name,
                command=tuple(
                    part.format(python=self.release.python, port=port) for part in spec.command
                ),
                environment={**self._environment, **own},
                directory=self.release.folder,
                log=self._stack.state.log(name),
                port=port,
                probe=partial(http_answers, health),
                health=health,
                ready_within=spec.ready_within,
                before_start=empty,
            )
        )
