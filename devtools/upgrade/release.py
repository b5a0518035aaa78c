"""The two sides of an upgrade: code in a folder, and the Python that runs it.

The earlier side is the commit named in UPGRADE_FROM. Its code comes from this repository's history,
its packages from its own lock into a virtual environment of its own, which is kept beside the other
downloads of the local stack.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.localstack.environment import read_environment
from devtools.localstack.errors import LocalStackError, tail
from devtools.localstack.processes import PLAN, Plan, PreparationStep, ProcessSpec
from devtools.localstack.server import Report
from devtools.localstack.spawn import run
from devtools.localstack.state import CLONE, clone_state

__all__ = ["COMMIT_FILE", "EarlierRelease", "behind", "commit_to_upgrade_from", "earlier", "today"]

COMMIT_FILE = CLONE / "UPGRADE_FROM"
LOCK = "requirements-local.txt"
INSTALL_SECONDS = 900.0
# The app that both sides have, each in a release of its own.
COURIER = Path("devtools", "upgrade", "courier")
NEWER = COURIER / "migrations" / "0002_place.py"  # which the older release of it does not have
# Asked of the earlier code by its own Python.
ASK_FOR_PLAN = """
import json
from devtools.localstack.processes import PLAN
print(json.dumps({
    "processes": [
        [spec.name, spec.command, spec.health, spec.web, spec.needs_rabbitmq]
        for spec in PLAN.processes
    ],
    "preparation": [step.command for step in PLAN.preparation],
}))
"""


@dataclass(frozen=True, slots=True)
class EarlierRelease:
    """Code that processes are started from. `settings`: variables by which it has the probe and its
    release of the courier."""

    name: str
    folder: Path
    python: Path
    settings: Mapping[str, str]
    plan: Plan

    def migrations(self) -> Mapping[str, Sequence[str]]:
        """App -> names of its migrations, in their order."""
        found: dict[str, list[str]] = {}
        for apps in ("*", str(COURIER)):
            for file in sorted(self.folder.glob(f"{apps}/migrations/[0-9]*.py")):
                found.setdefault(file.parts[-3], []).append(file.stem)
        return found


def behind(old: EarlierRelease, new: EarlierRelease) -> Mapping[str, str]:
    """App -> the newest migration that the old code knows, of those apps that both have and where the
    new code has more. Back to there an upgrade can be taken; an app that only the new code has keeps
    its tables, which hold what people have written meanwhile."""
    known = old.migrations()
    return {
        app: known[app][-1]
        for app, names in new.migrations().items()
        if app in known and names[-1] != known[app][-1]
    }


def commit_to_upgrade_from() -> str:
    """The hash in UPGRADE_FROM. Raises LocalStackError if the file names none."""
    commit = COMMIT_FILE.read_text().strip()
    if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
        raise LocalStackError(f"{COMMIT_FILE.name} must hold one full commit hash.")
    return commit


def today() -> EarlierRelease:
    """The code of this clone, all but what needs RabbitMQ: the relay has no state in common."""
    processes = tuple(spec for spec in PLAN.processes if not spec.needs_rabbitmq)
    return EarlierRelease(
        name="new",
        folder=CLONE,
        python=Path(sys.executable),
        settings=_settings("new"),
        plan=Plan(processes, PLAN.preparation),
    )


def earlier(commit: str, folder: Path, report: Report) -> EarlierRelease:
    """The code of a commit, unpacked into an empty folder. Raises LocalStackError."""
    _unpack(commit, folder)
    if not (folder / COURIER.parent).exists():
        raise LocalStackError(
            f"Commit {commit} is older than this test. Choose a newer one with --from."
        )
    # Today's, if that commit has one of its own: both sides run the same files.
    shutil.rmtree(folder / COURIER, ignore_errors=True)
    shutil.copytree(CLONE / COURIER, folder / COURIER)
    (folder / NEWER).unlink()
    python = _environment(folder / LOCK, report)
    settings = _settings("old")
    told = _ask(python, folder, settings)
    processes = tuple(
        ProcessSpec(name, tuple(command), health, web)
        for name, command, health, web, needs_rabbitmq in told["processes"]
        if not needs_rabbitmq
    )
    preparation = tuple(PreparationStep(tuple(command)) for command in told["preparation"])
    return EarlierRelease("old", folder, python, settings, Plan(processes, preparation))


def _settings(release_of_courier: str) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": ".".join((*COURIER.parts, "settings")),
        "COURIER": release_of_courier,
    }


def _unpack(commit: str, folder: Path) -> None:
    git = shutil.which("git")
    if git is None:
        raise LocalStackError("Install git: the test takes the earlier code from it.")
    with tempfile.TemporaryDirectory(prefix="eventsite-upgrade-") as name:
        archive = Path(name, "code.tar")
        answer = subprocess.run(  # noqa: S603  (found on PATH, with a hash)
            [git, "-C", str(CLONE), "archive", "--format=tar", f"--output={archive}", commit],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise LocalStackError(
                f"git has no commit {commit} ({answer.stderr.strip()})."
                " A clone without its history gets it by `git fetch --unshallow`."
            )
        with tarfile.open(archive) as code:
            code.extractall(folder, filter="data")


def _environment(lock: Path, report: Report) -> Path:
    """The Python of a virtual environment made from a lock; made once for each lock."""
    digest = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()[:16]
    place = clone_state().root / "environments" / digest
    python = place / "bin" / "python"
    if python.exists():
        return python
    report("installing what the earlier code runs on (once, about a minute) …")
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=place.parent))
    log = draft.with_suffix(".log")
    try:
        _must([sys.executable, "-m", "venv", str(draft)], log)
        _must([*_installer(draft / "bin" / "python"), "--require-hashes", "-r", str(lock)], log)
        _publish(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        log.unlink(missing_ok=True)
    return python


def _publish(draft: Path, place: Path) -> None:
    """Rename into place: only the environment's scripts would mind, and none of them is used. Another
    run of this clone may have been faster."""
    try:
        draft.rename(place)
    except OSError:
        if not place.exists():
            raise


def _installer(python: Path) -> list[str]:
    """As in the Makefile: uv, where it is, only makes it faster."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _must(command: Sequence[str], log: Path) -> None:
    # The caller's environment names proxies and indexes.
    variables = read_environment().variables
    code, _ = run(command, environment=variables, directory=CLONE, log=log, seconds=INSTALL_SECONDS)
    if code:
        raise LocalStackError(f"{' '.join(command[:4])} failed:\n" + "\n".join(tail(log)))


def _ask(python: Path, folder: Path, settings: Mapping[str, str]) -> dict[str, Any]:
    answer = subprocess.run(  # noqa: S603  (that commit's own code)
        [str(python), "-c", ASK_FOR_PLAN],
        cwd=folder,
        env={**read_environment().variables, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise LocalStackError(f"The earlier code cannot list its processes:\n{answer.stderr}")
    told: dict[str, Any] = json.loads(answer.stdout)
    return told
