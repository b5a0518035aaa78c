"""As whom PostgreSQL runs: it refuses root, so under root it becomes `nobody`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from devtools.localstack.errors import LocalStackError
from devtools.localstack.spawn import Login, spawn

__all__ = ["Installation", "private_folder", "runnable"]

NOBODY = 65534
# Either passes directories that are closed to nobody. The first can only read, but containers
# often withhold it.
CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE = 2, 1


@dataclass(frozen=True, slots=True)
class Installation:
    """Where PostgreSQL's programs and its data are, and as whom they run."""

    root: Path
    data: Path
    login: Login | None = None
    version: str = ""

    def binary(self, name: str) -> Path:
        return self.root / "bin" / name


def runnable(root: Path, data: Path, log: Path) -> Installation:
    """The first way that works, leaving the permissions of everything outside the state as they are.

    Not root: as this user. Root: as nobody; as nobody with one capability, for a clone below a
    closed directory such as /root (whoever may connect can then read what root can: on 127.0.0.1,
    the users of this machine); as nobody with binaries and data in the temp folder, where
    capabilities are not to be had.
    """
    here = Installation(root, data)
    if os.geteuid() != 0:
        return _with_version(here, log)
    for capability in (None, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        candidate = replace(here, login=Login(NOBODY, capability))
        if _reaches(candidate):
            return _with_version(candidate, log)
    return _with_version(_moved(here), log)


def private_folder(data: Path) -> Path:
    """Where binaries and data go in the temp folder; derived from the state, so it is found again."""
    name = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"eventsite-postgres-{name}"


def _moved(installation: Installation) -> Installation:
    folder = private_folder(installation.data)
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise LocalStackError(f"{folder} belongs to somebody else; delete it.")
    root = _copy(installation.root, folder / "wheel")
    moved = Installation(root, folder / "postgres", Login(NOBODY))
    if not _reaches(moved):
        raise LocalStackError(
            "PostgreSQL refuses to run as root and cannot become another user here."
            " Run as an ordinary user, or set DATABASE_URL to use another server."
        )
    return moved


def _copy(root: Path, to: Path) -> Path:
    """Copy an installation, and the libraries that its wheel keeps beside the package, once."""
    package = root.parent
    libraries = package.with_name(f"{package.name}.libs")
    if not to.exists():
        draft = Path(tempfile.mkdtemp(dir=to.parent))
        draft.chmod(0o755)
        shutil.copytree(root, draft / package.name / root.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        draft.rename(to)
    return to / package.name / root.name


def _reaches(installation: Installation) -> bool:
    """Whether this login can run the programs and write at the place of its data."""
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=installation.data.parent))
    try:
        os.chown(place, NOBODY, NOBODY)
        # initdb looks for its sister programs, as it will when it is meant
        script = 'touch "$1/file" && "$2" --show -D "$1/data"'
        child = spawn(
            ["/bin/sh", "-c", script, "sh", str(place), str(installation.binary("initdb"))],
            environment={"PATH": os.defpath},
            directory=Path("/"),
            output=subprocess.DEVNULL,
            login=installation.login,
        )
        return child.wait(30) == 0
    except OSError:
        return False
    finally:
        with suppress(OSError):
            os.chown(place, os.geteuid(), os.getegid())
        shutil.rmtree(place, ignore_errors=True)


def _with_version(installation: Installation, log: Path) -> Installation:
    answer = subprocess.run(  # noqa: S603 - found in the wheel
        [installation.binary("postgres"), "--version"], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        log.write_text(answer.stderr)
        raise LocalStackError(
            f"{installation.binary('postgres')} does not run here: {answer.stderr.strip()}."
            " Set DATABASE_URL to use another server."
        )
    return replace(installation, version=answer.stdout.split()[-1])
