"""The processes as in a container: another user, a tree that nobody may write to, one temp folder.

The tree is what the Dockerfile copies; of the packages only those of the lock can be imported; the
settings are those of production. Not tried: the image's own Python and its base system.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from devtools.image.files import copy_files
from devtools.image.only_the_lock import ONLY_THE_LOCK
from devtools.localstack import PLAN, LocalStack
from devtools.localstack.logins import CAP_DAC_READ_SEARCH
from devtools.localstack.spawn import Login, run
from devtools.testing.patience import PATIENCE
from devtools.testing.pipeline import settles
from devtools.testing.processes import Spec, free_port, running_together

USER = 10001  # the image's
FOLDERS = "eventsite-image-"
# Where everybody may write, on any machine: a container has neither of them.
OPEN_FOLDERS = [Path(name) for name in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")]
PROCESSES = ("web", "worker-outbox", "worker-effects", "beat", "bridge")


@dataclass(frozen=True)
class Container:
    """What a container of the image has: /app, a temp folder, variables, a user."""

    app: Path
    temp: Path
    environment: Mapping[str, str]
    login: Login | None

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        return run(
            command,
            environment={**self.environment, **environment},
            directory=self.app,
            log=self.app.parent / "commands.log",
            seconds=PATIENCE,
            login=self.login,
        )

    def manage(self, *arguments: str) -> str:
        """What a command of manage.py says that succeeds."""
        code, output = self.run(sys.executable, "manage.py", *arguments)
        assert code == 0, output
        return output

    def spec(self, name: str, port: int) -> Spec:
        """A process by its name in the table; web as in the image's CMD."""
        [process] = [spec for spec in PLAN.processes if spec.name == name]
        command = [part.format(python=sys.executable, port=port) for part in process.command]
        if process.web:
            command += ["--host", "127.0.0.1", "--workers", "2"]
        own = {"METRICS_PORT": str(port)} if not process.web else {}
        return Spec(
            command,
            {
                **self.environment,
                **own,
                "SERVICE_NAME": name,
                # Of the processes themselves, in the temp folder, as the chart has it.
                "PROMETHEUS_MULTIPROC_DIR": "",
            },
            f"http://127.0.0.1:{port}{process.health}",
            self.app,
            self.login,
        )


def _give(folder: Path, login: Login | None) -> None:
    if login is not None:
        os.chown(folder, login.uid, login.uid)


def _another_user() -> Login | None:
    """Where root runs the tests: one whom nothing belongs to; if he cannot reach this Python, because it
    lies below a closed folder such as /root, he may read what is closed. Where somebody else runs them:
    None, he himself."""
    if os.geteuid() != 0:
        return None
    for login in (Login(USER), Login(USER, CAP_DAC_READ_SEARCH)):
        try:
            code, _ = run(
                (sys.executable, "-c", "import django"),
                environment={},
                directory=Path("/"),
                log=Path(os.devnull),
                seconds=PATIENCE,
                login=login,
            )
        except OSError:
            continue
        if code == 0:
            return login
    pytest.skip(f"root cannot become another user here who can run {sys.executable}")


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalStack]:
    """Their tables are those of the image's own migrations."""
    with LocalStack.ephemeral(servers_only=True, own_servers=True, report=lambda _: None) as stack:
        yield stack


@pytest.fixture(scope="module")
def container(servers: LocalStack) -> Iterator[Container]:
    login = _another_user()
    # Not pytest's own folder, which is closed to other users.
    root = Path(tempfile.mkdtemp(prefix=FOLDERS))
    root.chmod(0o755)
    app, temp, site = root / "app", root / "temp", root / "site"
    copy_files(app, read_only=True)
    temp.mkdir()
    _give(temp, login)
    site.mkdir()
    (site / "sitecustomize.py").write_text(ONLY_THE_LOCK)
    addresses = {
        name: servers.env[name] for name in ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
    }
    kafka = {name: value for name, value in servers.env.items() if name.startswith("KAFKA_")}
    environment = {
        **addresses,
        **kafka,
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "TMPDIR": str(temp),
        "PYTHONPATH": str(site),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.production",
        "DJANGO_SECRET_KEY": secrets.token_hex(32),
        "ALLOWED_HOSTS": "127.0.0.1",
        "ADMIN_PASSWORD": secrets.token_hex(16),
        "WEBHOOK_URL": "http://127.0.0.1:9/send",
        # What the test's servers are, and a container's would not be.
        "ACCEPTED_RISKS": "single-postgresql,few-replicas",
    }
    try:
        yield Container(app, temp, environment, login)
    finally:
        for folder, _, _ in os.walk(app):  # or another user than root could not delete it
            Path(folder).chmod(0o755)
        shutil.rmtree(root)


def test_nobody_writes_into_the_tree(container: Container) -> None:
    for place in (".", "orders", "staticfiles"):
        code, output = container.run("touch", f"{place}/written")
        assert code == 1, output
    code, output = container.run("sh", "-c", "id -u && touch $TMPDIR/written && rm $TMPDIR/written")
    assert code == 0, output
    assert output.strip() == str(container.login.uid if container.login else os.geteuid())


def test_an_order_has_its_effect(container: Container) -> None:
    """Each process is started as in the image, an order placed, and its figures are read."""
    before = time.time()
    container.manage("prepare")
    told = container.manage(
        *("api_keys", "create", "shop", "--by", "test"),
        *("--scope", "orders:write", "--scope", "analytics:read"),
    )
    [key] = re.findall(r"^ek_\w+$", told, re.MULTILINE)
    ports = {name: free_port() for name in PROCESSES}
    base = f"http://127.0.0.1:{ports['web']}"

    def ask(path: str, body: object = None) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        with urlopen(Request(base + path, content, headers), timeout=PATIENCE) as answer:
            read: bytes = answer.read()
        return read

    specs = [container.spec(name, ports[name]) for name in PROCESSES]
    with running_together(specs):
        ask("/orders", {"user_id": "u1", "amount": 42.5})
        assert settles(lambda: json.loads(ask("/analytics/summary"))["orders_total"] == 1)
        for name in PROCESSES:
            check = ("docker/healthcheck.py",)
            code, output = container.run(sys.executable, *check, METRICS_PORT=str(ports[name]))
            assert code == 0, f"{name}: {output}"
            assert b"# HELP " in ask_metrics(ports[name]), name
        # A probe and a scrape know the address of a container, which is no host that is served.
        for path in ("/health", "/health/ready", "/metrics"):
            with urlopen(Request(base + path, headers={"Host": "10.1.2.3:8080"})) as answer:
                assert answer.status == 200
        page = ask("/admin/login/").decode()
        [style, *_] = re.findall(r'href="(/static/[^"]+\.css)"', page)
        assert ask(style), style
    assert (
        _written(container, since=before, where=lambda path: path.is_relative_to(container.app))
        == []
    )
    if container.login:  # everything of this user is of these processes
        outside = _written(
            container,
            since=before,
            where=lambda path: FOLDERS not in str(path) or _is_astray(path, container),
        )
        assert outside == []


def _is_astray(path: Path, container: Container) -> bool:
    """Beside the temp folder of this run; the folders of other runs are theirs."""
    return path.is_relative_to(container.app.parent) and not path.is_relative_to(container.temp)


def ask_metrics(port: int) -> bytes:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        read: bytes = answer.read()
    return read


def _written(container: Container, *, since: float, where: Callable[[Path], bool]) -> list[str]:
    """Files and folders of the user, or that changed, in the tree and where everybody may write."""
    found = []
    for top in (container.app, *OPEN_FOLDERS):
        for folder, _, names in os.walk(top, onerror=lambda _: None):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                try:
                    told = path.lstat()
                except OSError:  # somebody else's, and gone
                    continue
                mine = container.login and told.st_uid == container.login.uid
                changed = top == container.app and told.st_mtime > since
                if (mine or changed) and not stat.S_ISLNK(told.st_mode) and where(path):
                    found.append(str(path))
    return found
