"""Is the process in this container alive? Exit code 0 or 1, for Docker's HEALTHCHECK.

A worker, beat or bridge serves `/health` on METRICS_PORT; web, which has none, on 8080.
"""

import os
import sys
import urllib.request

TIMEOUT_SECONDS = 3


def main() -> None:
    port = os.environ.get("METRICS_PORT") or "8080"
    # No proxy: one that Docker injects into the environment must not answer for this process.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"http://127.0.0.1:{port}/health", timeout=TIMEOUT_SECONDS).close()
    except OSError as error:  # refused, timed out, or an HTTP status of 400 and above
        sys.exit(f"/health on port {port}: {error}")


if __name__ == "__main__":
    main()
