"""pip-audit itself on a small lock, against a server on this machine that answers as OSV does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from devtools.dependency_audit.__main__ import main
from devtools.dependency_audit.allowed import LIST, ListError, read_allowed
from devtools.dependency_audit.run import LOCKS
from devtools.testing.processes import free_port

TODAY = datetime.now(UTC).date()
HASH = "--hash=sha256:" + "0" * 64
LOCK = f"django==5.2.0 {HASH}\nredis==6.0.0 {HASH}\n"
WEAKNESS = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-1"],
    "summary": "Something can be done.",
    "affected": [
        {
            "package": {"name": "django", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "5.2.1"}]}],
        }
    ],
}


class Osv(ThreadingHTTPServer):
    """Knows a weakness of Django, or answers with a status alone."""

    status = 200
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Osv

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        self.server.asked.append(f"{name} {query['version']}")
        body = json.dumps({"vulns": [WEAKNESS]} if name == "django" else {}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[Osv]:
    server = Osv(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def entry(**changes: Any) -> str:
    given = {
        "id": '"CVE-2026-1"',
        "package": '"django"',
        "reason": '"We do not do this."',
        "since": TODAY - timedelta(days=10),
        "until": TODAY + timedelta(days=10),
    }
    return "\n".join(["[[allowed]]", *(f"{k} = {v}" for k, v in (given | changes).items()), ""])


@pytest.fixture
def audit(tmp_path: Path, osv: Osv) -> Any:
    """Runs it with a list; exit code."""
    lock, allowed = tmp_path / "requirements.txt", tmp_path / "allowed.toml"
    lock.write_text(LOCK)

    def run(entries: str = "", *options: str, service: str = "") -> int:
        allowed.write_text(entries)
        url = service or f"http://127.0.0.1:{osv.server_port}"
        return main(["--service", url, "--list", str(allowed), *options, str(lock)])

    return run


def test_a_weakness_is_told_with_its_names_and_what_mends_it(
    audit: Any, osv: Osv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit() == 1
    assert sorted(osv.asked) == ["django 5.2.0", "redis 6.0.0"]
    [line] = capsys.readouterr().out.splitlines()
    assert line == ("WARNING: django 5.2.0: CVE-2026-1, GHSA-aaaa-bbbb-cccc, mended in 5.2.1")


def test_ci_only_warns(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit("", "--warn") == 0
    assert "WARNING: django" in capsys.readouterr().out


def test_what_was_looked_at_is_allowed_until_its_day(
    audit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(entry()) == 0
    assert "We do not do this." in capsys.readouterr().out
    assert audit(entry(until=TODAY - timedelta(days=1))) == 1
    assert "it was allowed until" in capsys.readouterr().out
    assert audit(entry(package='"redis"')) == 1
    said = capsys.readouterr().out
    assert "WARNING: django" in said
    assert "take it out of the list" in said


def test_a_service_that_is_away_is_a_sentence_and_no_all_clear(
    audit: Any, osv: Osv, capsys: pytest.CaptureFixture[str]
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    for service, status in ((away, 200), ("", 503), ("", 404)):
        osv.status = status
        assert audit(service=service) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("WARNING: the dependencies could not be audited: http")
        assert "Traceback" not in told.err
    assert audit("", "--warn", service=away) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"until": TODAY + timedelta(days=400)}, "ends within"),
        ({"until": TODAY - timedelta(days=11)}, "ends within"),
        ({"reason": '""'}, "needs a reason"),
        ({"owner": '"me"'}, "owner"),
        ({"until": '"never"'}, "until"),
    ],
)
def test_an_entry_needs_a_reason_and_an_end(
    audit: Any, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert audit(entry(**changes)) == 1
    assert said in capsys.readouterr().err


def test_our_own_list_can_be_read() -> None:
    try:
        entries = read_allowed(LIST)
    except ListError as error:  # its sentence is the message
        pytest.fail(str(error))
    assert all(isinstance(each.until, date) for each in entries)


def test_all_locks_are_audited() -> None:
    root = LOCKS[0].parent
    assert {lock.name for lock in LOCKS} == {path.name for path in root.glob("requirements*.txt")}
