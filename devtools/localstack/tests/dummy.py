"""A process that answers /health and has a child that left its process group."""

import http.server
import os
import subprocess
import sys


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    port = sys.argv[1] if len(sys.argv) > 1 else os.environ["METRICS_PORT"]
    http.server.HTTPServer(("127.0.0.1", int(port)), Health).serve_forever()
