"""/metrics, /health and /health/ready of a process that serves no other HTTP, and its heartbeat."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from outbox import metrics
from outbox.process.health import ReadinessAnswer, readiness
from outbox.process.heartbeat import Heartbeat

__all__ = ["serve_in_background"]

PATHS = ("/metrics", "/health", "/health/ready")
ALLOWED = "GET, HEAD, OPTIONS"
RETRY_AFTER_SECONDS = "2"


def serve_in_background(
    process: str,
    *,
    is_well: Callable[[], bool] = lambda: True,
    own_checks: Mapping[str, Callable[[], bool]] = {},
    ready: Callable[[], ReadinessAnswer] | None = None,
    aliases: Mapping[str, str] = {},
    port: int | None = None,
    figures: Callable[[], Mapping[str, float]] = dict,
    queues: Callable[[], Sequence[str]] = tuple,
) -> int:
    """Start the server on a daemon thread; prints and returns its port (METRICS_PORT unless `port`
    says another; 0: any free).

    /health answers 503 while `is_well` says no; `own_checks` stand beside the servers in
    /health/ready, or `ready` says all of it. `aliases`: further path -> path that it means.
    `figures` and `queues` are written with each heartbeat.
    """
    wanted = settings.METRICS_PORT if port is None else port
    server = _Server((settings.METRICS_HOST, wanted), _Handler)
    server.is_well = is_well
    server.ready = ready or partial(readiness, own_checks)
    server.aliases = aliases
    threading.Thread(target=server.serve_forever, name="ops-server", daemon=True).start()
    metrics.PROCESS_UP.labels(process).set(1)
    Heartbeat(process, figures=figures, queues=queues).start()
    bound = server.server_address[1]
    print(f"{process}: metrics and health on http://{settings.METRICS_HOST}:{bound}", flush=True)
    return bound


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    is_well: Callable[[], bool]
    ready: Callable[[], ReadinessAnswer]
    aliases: Mapping[str, str]


class _Handler(BaseHTTPRequestHandler):
    """Answers as the web process does: JSON but for the metrics, HEAD and OPTIONS beside GET, else a
    405."""

    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match self.server.aliases.get(url.path, url.path):
            case "/metrics":
                registry = CollectorRegistry()
                MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            case "/health":
                well = self.server.is_well()
                self._json(200 if well else 503, {"status": "alive" if well else "stuck"})
            case "/health/ready":
                ready = self.server.ready()
                strict = parse_qs(url.query).get("strict") == ["1"]
                body = {"status": ready.status, "checks": dict(ready.checks)}
                self._json(ready.http_status(strict=strict), body)
            case _:
                self._error(404, f"There is nothing at {url.path}.")

    do_HEAD = do_GET  # without the body, see _answer

    def do_OPTIONS(self) -> None:
        if self._is_served():
            self._json(200, {}, {"Allow": ALLOWED})
        else:
            self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class would answer in HTML: another method, and what is no HTTP."""
        self.close_connection = True
        if code != HTTPStatus.NOT_IMPLEMENTED:
            self._error(code, f"{message or HTTPStatus(code).phrase}.")
        elif self._is_served():
            self._error(405, f'Method "{self.command}" not allowed.', {"Allow": ALLOWED})
        else:
            self.do_GET()

    def _is_served(self) -> bool:
        path = urlsplit(self.path).path
        return self.server.aliases.get(path, path) in PATHS

    def _error(self, status: int, message: str, headers: Mapping[str, str] = {}) -> None:
        self._json(status, {"error": message, "details": []}, headers)

    def _json(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers = {**headers, "Retry-After": RETRY_AFTER_SECONDS}
        self._answer(status, "application/json", json.dumps(body).encode(), headers)

    def _answer(
        self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] = {}
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not news."""
