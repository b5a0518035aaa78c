"""What goes into the image starts as another user, where only the temp folder can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

from devtools.benchmarks.operations.size import files_of_image
from devtools.localstack.spawn import spawn
from devtools.localstack.state import CLONE
from devtools.testing.pipeline import settles
from devtools.testing.processes import child_environment, command_of, free_port, get_status

NAMES = ("web", "worker-outbox", "worker-effects", "beat", "bridge")
# Nobody, who may read: the interpreter may lie below a closed home directory of root.
AS_NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """With `tree`, which nobody can write, and `tmp`, which everybody can."""
    with tempfile.TemporaryDirectory(prefix="eventsite-image-") as name:
        root = Path(name)
        root.chmod(0o755)
        for file in files_of_image():
            place = root / "tree" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CLONE / file, place)
            place.chmod(0o444)
        tree = root / "tree"
        folders = [tree, *(each for each in tree.rglob("*") if each.is_dir())]
        for each in folders:
            each.chmod(0o555)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o777)
        yield root
        for each in folders:
            each.chmod(0o755)


@pytest.mark.django_db(transaction=True)
def test_every_kind_of_process_starts_from_a_read_only_tree(folder: Path) -> None:
    call_command("create_topics", verbosity=0)
    call_command("sync_routes", verbosity=0)
    before = listing(folder / "tree")
    running = []
    log = folder / "tmp" / "log"
    try:
        ports = {}
        with log.open("wb") as output:
            for name in NAMES:
                port = ports[name] = free_port()
                own = {
                    "DJANGO_SETTINGS_MODULE": "eventsite.settings.local",
                    "HOME": "/nonexistent",
                    "TMPDIR": str(folder / "tmp"),
                    "PROMETHEUS_MULTIPROC_DIR": "",
                    ("PORT" if name == "web" else "METRICS_PORT"): str(port),
                }
                running.append(
                    spawn(
                        [*(AS_NOBODY if os.geteuid() == 0 else ()), *command_of(name, port)],
                        environment=child_environment(**own),
                        directory=folder / "tree",
                        output=output,
                    )
                )
        for name, port in ports.items():
            started = settles(
                lambda port=port: get_status(f"http://127.0.0.1:{port}/health") == 200
            )
            assert started, (name, log.read_text()[-3000:])
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.wait()
    assert listing(folder / "tree") == before


def listing(tree: Path) -> list[str]:
    return sorted(str(each) for each in tree.rglob("*"))
