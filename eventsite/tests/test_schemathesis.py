"""Requests made from the API's own document, over real HTTP: what it says is what happens.

Schemathesis sends each operation its examples, values at and past every bound, methods it has not,
random ones, and chains of operations, the same in every run. All its checks are on. A field of an
answer that the document does not name is a finding too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from devtools.testing.web import Web

OPTIONS = (
    *("--phases", "examples,coverage,fuzzing,stateful", "--checks", "all", "--mode", "all"),
    *("--max-examples", "8", "--seed", "20260311", "--generation-deterministic"),
    *("--continue-on-failure", "--no-color"),
)
# An idempotency key that comes again with another body is well formed, and a 422. Whether a template fits
# a notification, its variables or its new channel depends on the template: that may be a 400.
# That nobody follows himself, and that a feed is read from one place, no schema can say.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]

[[operations]]
include-operation-id = ["createNotification", "createBatch", "previewTemplate", "changeTemplate"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "422"]
phases.fuzzing.generation.max-examples = 4

[[operations]]
include-path-regex = "^/api/v1/"
exclude-operation-id = ["createNotification", "createBatch", "previewTemplate", "changeTemplate"]
phases.fuzzing.generation.max-examples = 4

[[operations]]
include-path-regex = "^/(follow|feeds/.*)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422", "429"]
"""


def closed(published: dict[str, Any]) -> dict[str, Any]:
    """The document, its answers without room for fields that it does not name."""
    for name, component in published["components"]["schemas"].items():
        if component.get("type") == "object" and not name.endswith("Request"):
            component["additionalProperties"] = False
    return published


def test_schemathesis_finds_nothing(web: Web, tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(closed(json.loads(web.get("/openapi.json").body))))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(path)),
            *("--url", f"http://127.0.0.1:{web.port}", *OPTIONS),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
