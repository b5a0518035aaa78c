"""One local stack: servers, preparation, processes; started in this order, stopped in reverse."""

from __future__ import annotations

import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from devtools.localstack.environment import MARKER, StackEnvironment, marked, read_environment
from devtools.localstack.errors import LocalStackError, NotReady, StartFailed
from devtools.localstack.guard import Guard
from devtools.localstack.kafka import embedded_kafka
from devtools.localstack.keeper import Keeper, KeeperThread
from devtools.localstack.logins import private_folder
from devtools.localstack.ports import Ports
from devtools.localstack.postgres import embedded_postgres
from devtools.localstack.probes import (
    Probe,
    amqp_answers,
    http_answers,
    kafka_answers,
    postgres_answers,
    redis_answers,
)
from devtools.localstack.processes import PLAN, Plan, PreparationStep, ProcessSpec
from devtools.localstack.rabbitmq import embedded_amqp
from devtools.localstack.redis import embedded_redis
from devtools.localstack.server import Report, Server
from devtools.localstack.spawn import run
from devtools.localstack.state import CLONE, StackState, ephemeral_state
from devtools.localstack.terminal import complain, log_entry
from devtools.localstack.unit import Program, Unit, stop_all

__all__ = ["DEFAULT_WEB_PORT", "LocalStack", "Options"]

DEFAULT_WEB_PORT = 8080
STEP_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Options:
    """What kind of stack it is to be."""

    ephemeral: bool
    servers_only: bool = False
    own_servers: bool = False  # embedded servers even where the environment names external ones
    broker: str = "auto"  # apache, tansu, or auto: what the environment says, else what is possible
    extra_env: Mapping[str, str] = field(default_factory=dict)
    keep_up: bool = False  # start our processes again when they die; the supervisor does it itself


class LocalStack:
    """Servers and processes with one life. Use `ephemeral` unless you are the supervisor.

    As a context manager it starts on entry and on exit stops everything it started, whatever
    happened; a warden does the same when this process is killed.
    """

    def __init__(
        self, state: StackState, options: Options, *, plan: Plan = PLAN, report: Report = complain
    ) -> None:
        self.state = state
        self.options = options
        self.plan = plan
        self.servers: list[Server] = []
        self.units: list[Unit] = []  # of our processes
        self.output: dict[str, str] = {}  # of the preparation, by step
        self.env: dict[str, str] = {}
        self.report = report
        # of this run alone: the warden of a killed one may still be at work when the next starts
        self._mark = f"{state.root}#{secrets.token_hex(4)}"
        self._guard: Guard | None = None
        self._keeper: KeeperThread | None = None

    @classmethod
    def ephemeral(
        cls,
        *,
        servers_only: bool = False,
        own_servers: bool = False,
        kafka: str = "auto",
        extra_env: Mapping[str, str] | None = None,
        plan: Plan = PLAN,
        report: Report = complain,
        keep_up: bool = False,
    ) -> LocalStack:
        """A stack on free ports with a state of its own that is deleted with it.

        A process of it that dies stays dead until its handle starts it again; with `keep_up` it
        is started again at once, as by any supervisor, and counted in `restarts`.
        """
        options = Options(
            ephemeral=True,
            servers_only=servers_only,
            own_servers=own_servers,
            broker=kafka,
            extra_env=extra_env or {},
            keep_up=keep_up,
        )
        return cls(ephemeral_state(), options, plan=plan, report=report)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.env['PORT']}"

    @property
    def restarts(self) -> Mapping[str, int]:
        """How often each of our processes was started again by itself; empty without `keep_up`."""
        return dict(self._keeper.keeper.restarts) if self._keeper else {}

    def process(self, name: str) -> Unit:
        """The handle of one of our processes. Raises LocalStackError when there is none."""
        return _named(name, self.units)

    def server(self, name: str) -> Unit:
        """The handle of an embedded server: postgres, redis, kafka or rabbitmq.

        Raises LocalStackError when it is an external one, which is not ours to touch.
        """
        return _named(name, [server.unit for server in self.servers if server.unit])

    def start(self) -> None:
        """Start everything and wait until it is ready. On any error everything is stopped again."""
        environment = read_environment()
        state = self.state
        try:
            state.create()
            removals = [state.root, private_folder(state.root / "postgres")]
            doomed = removals if self.options.ephemeral else ()
            self._guard = Guard(self._mark, environment.variables, doomed)
            ports = Ports(state.ports)
            self._compose_environment(environment, ports)
            self._start_servers(environment, ports)
            if not self.options.servers_only:
                self.prepare(new_log=self._log_is_new())
                self._start_processes(ports)
                if self.options.keep_up:
                    self._keeper = KeeperThread(Keeper(self.units))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started, processes before servers, and sweep up. Never fails half-way."""
        try:
            if self._keeper is not None:
                self._keeper.stop()
            stop_all(self.units)
            stop_all([server.unit for server in self.servers if server.unit])
        finally:
            if self._guard is not None:
                self._guard.release()
            elif self.options.ephemeral:
                shutil.rmtree(self.state.root, ignore_errors=True)

    def prepare(self, *, new_log: bool) -> None:
        """Run the preparation; it has to know when Kafka's log is new under an older database."""
        for step in self.plan.preparation:
            self._run_step(step, step.on_new_log or () if new_log else ())

    def follow_new_log(self) -> None:
        """After a restart of a broker that forgets: what depends on its log, once more."""
        for step in self.plan.preparation:
            if step.on_new_log is not None:
                self._run_step(step, step.on_new_log)

    def _compose_environment(self, environment: StackEnvironment, ports: Ports) -> None:
        if self.options.ephemeral:
            web_port = ports.choose("web")
        else:
            web_port = ports.choose("web", environment.web_port or DEFAULT_WEB_PORT, "PORT")
        inherited = dict(environment.variables)
        self.env = {
            **inherited,
            MARKER: marked(inherited, self._mark),
            "PORT": str(web_port),
            "PYTHONUNBUFFERED": "1",
            "LOG_FORMAT": "json",  # in files; `make logs` makes lines for people of them
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics_directory("command")),
        }
        if not self.options.servers_only:
            self.env.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
        self.env.update(self.options.extra_env)

    def _start_servers(self, environment: StackEnvironment, ports: Ports) -> None:
        """All at once: each takes a second or two, most of it waiting."""
        makers: list[Callable[[], Server | None]] = [
            lambda: self._postgres(environment, ports),
            lambda: self._redis(environment, ports),
            lambda: self._kafka(environment, ports),
        ]
        if self._has_relay:
            makers.append(lambda: self._rabbitmq(environment, ports))
        with ThreadPoolExecutor(len(makers)) as pool:
            starts = [pool.submit(self._start_server, maker) for maker in makers]
        self.servers = [server for start in starts if (server := start.result())]
        for server in self.servers:
            self.env.update(server.environment)
        self.env.update(self.options.extra_env)

    @property
    def _has_relay(self) -> bool:
        return not self.options.servers_only and any(
            spec.needs_rabbitmq for spec in self.plan.processes
        )

    def add_rabbitmq(self) -> Server | None:
        """Start RabbitMQ, or its stand-in, beside the servers that run; None if this machine has
        neither."""
        environment = read_environment()
        server = self._start_server(lambda: self._rabbitmq(environment, Ports(self.state.ports)))
        if server is not None:
            self.env.update(server.environment)
        return server

    def _start_server(self, make: Callable[[], Server | None]) -> Server | None:
        begin = time.monotonic()
        server = make()
        if server is None:
            return None
        self.servers.append(server)
        if server.unit is not None:
            server.unit.start()
            server.unit.wait_ready()
            server.after_ready()
            port, seconds = server.unit.program.port, time.monotonic() - begin
            self.report(f"{server.name}: {server.description}, port {port}, up in {seconds:.1f} s")
        else:
            self.report(f"{server.name}: {server.description}")
        return server

    def _postgres(self, environment: StackEnvironment, ports: Ports) -> Server:
        if environment.database_url and not self.options.own_servers:
            probe = partial(postgres_answers, environment.database_url)
            return _external("postgres", "DATABASE_URL", environment.database_url, probe)
        port = ports.choose("postgres", self._wanted(environment.postgres_port), "POSTGRES_PORT")
        return embedded_postgres(self.state, port, self.env, ephemeral=self.options.ephemeral)

    def _redis(self, environment: StackEnvironment, ports: Ports) -> Server:
        if environment.redis_url and not self.options.own_servers:
            probe = partial(redis_answers, environment.redis_url)
            return _external("redis", "REDIS_URL", environment.redis_url, probe)
        port = ports.choose("redis", self._wanted(environment.redis_port), "REDIS_PORT")
        return embedded_redis(self.state, port, self.env)

    def _kafka(self, environment: StackEnvironment, ports: Ports) -> Server:
        addresses = environment.kafka_bootstrap_servers
        if addresses and not self.options.own_servers:
            probe = partial(kafka_answers, addresses)
            return _external("kafka", "KAFKA_BOOTSTRAP_SERVERS", addresses, probe)
        broker = self.options.broker
        return embedded_kafka(
            self.state,
            ports,
            self.env,
            broker=environment.kafka_broker or "auto" if broker == "auto" else broker,
            wanted_port=self._wanted(environment.kafka_port),
            report=self.report,
        )

    def _rabbitmq(self, environment: StackEnvironment, ports: Ports) -> Server | None:
        url = environment.rabbitmq_url
        if url and not self.options.own_servers:
            return _external("rabbitmq", "RABBITMQ_URL", url, partial(amqp_answers, url))
        return embedded_amqp(
            self.state,
            ports,
            self.env,
            broker=environment.amqp_broker or "auto",
            wanted_port=self._wanted(environment.rabbitmq_port),
            report=self.report,
        )

    def _wanted(self, port: int | None) -> int | None:
        """Ports from the environment are for `make up`: two ephemeral stacks could not share them."""
        return None if self.options.ephemeral else port

    def _log_is_new(self) -> bool:
        """Whether positions of our own database belong to a log that is gone. What an external
        database holds is not ours to move: there `sync_routes` refuses and says what to do."""
        servers = {server.name: server for server in self.servers}
        kafka, postgres = servers["kafka"], servers["postgres"]
        if postgres.unit is None:
            return False
        return kafka.forgets or (kafka.is_new and not postgres.is_new)

    def _run_step(self, step: PreparationStep, extra: tuple[str, ...]) -> None:
        begin = time.monotonic()
        log = self.state.log("prepare")
        command = [*(part.format(python=sys.executable) for part in step.command), *extra]
        with log.open("a") as file:  # its own lines carry no time
            file.write(log_entry("prepare", "started", step=step.name) + "\n")
        code, output = run(
            command, environment=self.env, directory=CLONE, log=log, seconds=STEP_SECONDS
        )
        if code != 0:
            reason = (
                f"exit code {code}" if code >= 0 else f"ended by signal or {STEP_SECONDS:.0f} s"
            )
            raise StartFailed(step.name, reason, log)
        self.output[step.name] = output.strip()
        self.report(f"{step.name}: done in {time.monotonic() - begin:.1f} s")

    def _start_processes(self, ports: Ports) -> None:
        begin = time.monotonic()
        has_rabbitmq = any(server.name == "rabbitmq" for server in self.servers)
        specs = [spec for spec in self.plan.processes if has_rabbitmq or not spec.needs_rabbitmq]
        self.units = [self._unit(spec, ports) for spec in specs]
        for unit in self.units:
            unit.start()
        for unit in self.units:
            unit.wait_ready()
        if self.units:
            names = ", ".join(unit.name for unit in self.units)
            self.report(f"{names}: up in {time.monotonic() - begin:.1f} s")

    def _unit(self, spec: ProcessSpec, ports: Ports) -> Unit:
        port = int(self.env["PORT"]) if spec.web else ports.choose(spec.name)
        metrics = self._metrics_directory(spec.name)
        own = {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "SERVICE_NAME": spec.name}
        if not spec.web:
            own["METRICS_PORT"] = str(port)
        health = f"http://127.0.0.1:{port}{spec.health}"
        program = Program(
            name=spec.name,
            command=tuple(part.format(python=sys.executable, port=port) for part in spec.command),
            environment={**self.env, **own},
            directory=CLONE,
            log=self.state.log(spec.name),
            port=port,
            probe=partial(http_answers, health),
            health=health,
            ready_within=spec.ready_within,
            # numbers of processes that are gone must not be counted
            before_start=partial(_empty, metrics),
        )
        return Unit(program)

    def _metrics_directory(self, name: str) -> Path:
        directory = self.state.root / "metrics" / name
        _empty(directory)
        return directory


def _external(name: str, variable: str, value: str, probe: Probe) -> Server:
    try:
        probe()
    except NotReady as answer:
        raise LocalStackError(
            f"{name} of {variable} does not answer: {answer}."
            f" Start it, or unset {variable} to use an embedded one."
        ) from None
    return Server(name, f"external, from {variable}", {variable: value})


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _named(name: str, units: list[Unit]) -> Unit:
    for unit in units:
        if unit.name == name:
            return unit
    known = ", ".join(unit.name for unit in units) or "none"
    raise LocalStackError(f"{name} does not run in this stack; these run: {known}.")
