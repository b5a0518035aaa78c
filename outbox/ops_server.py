"""/metrics, /health and /health/ready of a process that serves no other HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from outbox import metrics
from outbox.health import readiness

__all__ = ["serve_in_background"]


def serve_in_background(process: str, *, is_well: Callable[[], bool] = lambda: True) -> int:
    """Start the server on a daemon thread; prints and returns its port (METRICS_PORT, 0: any free).

    /health answers 503 while `is_well` says no.
    """
    server = _Server((settings.METRICS_HOST, settings.METRICS_PORT), _Handler)
    server.is_well = is_well
    threading.Thread(target=server.serve_forever, name="ops-server", daemon=True).start()
    metrics.PROCESS_UP.labels(process).set(1)
    port = server.server_address[1]
    print(f"{process}: metrics and health on http://{settings.METRICS_HOST}:{port}", flush=True)
    return port


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    is_well: Callable[[], bool]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match url.path:
            case "/metrics":
                registry = CollectorRegistry()
                MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            case "/health":
                well = self.server.is_well()
                self._json(200 if well else 503, {"status": "alive" if well else "stuck"})
            case "/health/ready":
                ready = readiness()
                strict = parse_qs(url.query).get("strict") == ["1"]
                body = {"status": ready.status, "checks": dict(ready.checks)}
                self._json(ready.http_status(strict=strict), body)
            case _:
                self._json(404, {"error": "Not found.", "details": []})

    def _json(self, status: int, body: object) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not news."""
