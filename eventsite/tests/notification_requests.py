"""Requests to the API of notifications, and the walk through all of it."""

from __future__ import annotations

import http.client
import os
import subprocess
from pathlib import Path
from typing import Any

from devtools.testing.web import Answer, Web, assert_error

__all__ = [
    "API",
    "BATCH",
    "FIELDS",
    "NOBODY",
    "NOTIFICATIONS",
    "NO_OBJECTS",
    "SCRIPT",
    "TEMPLATE",
    "TEMPLATES",
    "TIMES",
    "fields_of",
    "posted",
    "refused_by_length",
    "walk",
]

API = "/api/v1"
NOTIFICATIONS = f"{API}/notifications"
BATCH = f"{NOTIFICATIONS}/batch"
TEMPLATES = f"{API}/templates"
NOBODY = "01890000-0000-7000-8000-00000000dead"
TEMPLATE = {"name": "greeting", "channel": "sms", "body": "Hi {{.Name}}"}
TIMES = ("scheduled_at", "expires_at")
# Of a notification, in the contract's order.
FIELDS = (
    "id", "batch_id", "idempotency_key", "recipient", "channel", "content", "priority", "status",
    "provider_message_id", "scheduled_at", "expires_at", "sent_at", "failed_at", "retry_count",
    "max_retries", "error_message", "template_id", "template_variables", "rendered", "created_at",
    "updated_at",
)  # fmt: skip
NO_OBJECTS: tuple[Any, ...] = (None, 1, [], "x")


def posted(web: Web, path: str, value: Any) -> Any:
    answer = web.post(path, value)
    assert answer.status == 201, answer.body
    return answer.json


def fields_of(answer: Answer) -> list[str]:
    return [detail["field"] for detail in assert_error(answer, 400)["details"]]


def refused_by_length(web: Web, path: str, length: int) -> int:
    """The status of the answer to a head alone: who sends its body too may find the connection cut."""
    with web.socket() as raw:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(raw)
        answer.begin()
        return answer.status


# -- the walk


SCRIPT = Path(__file__).resolve().parents[2] / "scripts/test.sh"


def walk(web: Web, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"BASE_URL": f"http://127.0.0.1:{web.port}", "SECONDS_TO_DELIVER": "0"}
    return subprocess.run(
        [SCRIPT], env=os.environ | given | environment, capture_output=True, text=True, check=False
    )
