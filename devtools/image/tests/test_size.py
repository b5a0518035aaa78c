"""What goes into the image stays small, and all of it is counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devtools.image import __main__ as command
from devtools.image import size
from devtools.image.files import files_of_image
from devtools.image.size import Size, names_of_lock, size_of_image
from devtools.localstack.state import CLONE


def test_what_goes_into_the_image_is_small_enough() -> None:
    found = size_of_image()
    assert found.absent == ()
    assert {"django", "celery", "confluent-kafka"} <= found.packages.keys()
    assert found.total <= size.MOST_BYTES, found.largest


def test_a_package_is_as_large_as_its_files() -> None:
    import msgspec  # noqa: PLC0415  (only its place is asked)

    folder = Path(str(msgspec.__file__)).parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    of_folder = sum(path.stat().st_size for path in files)
    assert of_folder <= size_of_image().packages["msgspec"] < of_folder * 1.1


def test_the_tree_is_what_docker_would_copy() -> None:
    files = set(files_of_image())
    assert {"manage.py", "docker/healthcheck.py", "orders/services.py"} <= files
    assert not {file for file in files if "/tests/" in file or file.startswith("devtools")}
    assert size_of_image().tree == sum((CLONE / file).stat().st_size for file in files)


def test_names_of_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# a comment\nDjango==5.2 \\\n    --hash=sha256:00\nredis[hiredis]==6.0 \\\n"
        "colorama==0.4 ; sys_platform == 'win32' \\\n    # via click\n"
    )
    assert names_of_lock(lock) == {"Django": False, "redis": False, "colorama": True}


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (Size({"a": 149_000_000}, 900_000, ()), 0),
        (Size({"a": 149_000_000}, 1_100_000, ()), 1),
        (Size({"a": 1}, 1, ("b",)), 1),
    ],
)
def test_the_command_says_what_is_too_large(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: Size, code: int
) -> None:
    monkeypatch.setattr(command, "size_of_image", lambda: found)
    assert command.main() == code
    assert "MB go into the image" in capsys.readouterr().out


def test_the_command_is_there() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "devtools.image"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "The largest: " in told.stdout
