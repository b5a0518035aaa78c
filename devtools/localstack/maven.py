"""Java programs by Maven: their jars, copied once into the clone's cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from devtools.localstack.errors import LocalStackError, tail
from devtools.localstack.server import Report
from devtools.localstack.spawn import run
from devtools.localstack.state import clone_state

__all__ = ["fetch", "jars_of"]

COPY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
ALL: Callable[[str], bool] = lambda _: True  # noqa: E731


def jars_of(name: str) -> Path:
    """The folder of a program's jars."""
    return clone_state().root / "jars" / name


def fetch(
    name: str,
    pom: str,
    *,
    title: str,
    environment: Mapping[str, str],
    report: Report,
    wanted: Callable[[str], bool] = ALL,
) -> None:
    """Let Maven copy what the project file needs to run, once; jars whose file names are not wanted
    are left out. Raises LocalStackError when it cannot."""
    if jars_of(name).exists():
        return
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        raise LocalStackError("there is no Maven")
    report(f"fetching {title} by Maven (once, some seconds) …")
    jars_of(name).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="draft-", dir=jars_of(name).parent) as folder:
        draft = Path(folder)
        (draft / "pom.xml").write_text(pom)
        command = [
            *(maven, "-q", "-B", COPY_PLUGIN),
            *("-DincludeScope=runtime", f"-DoutputDirectory={draft / 'lib'}"),
        ]
        log = draft / "maven.log"
        code, _ = run(command, environment=environment, directory=draft, log=log, seconds=300)
        if code != 0:
            raise LocalStackError(f"Maven failed: {' '.join(tail(log, 50)[:1])}")
        for jar in (draft / "lib").iterdir():
            if not wanted(jar.name):
                jar.unlink()
        _publish(draft / "lib", jars_of(name))


def _publish(folder: Path, place: Path) -> None:
    """Rename into place; another stack of this clone may have been faster."""
    try:
        folder.rename(place)
    except OSError:
        if not place.exists():
            raise
