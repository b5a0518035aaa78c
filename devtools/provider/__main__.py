"""`python -m devtools.provider [--port N] [--log FILE [--forget]]`: prints its port, then serves."""

from __future__ import annotations

import argparse
import sys

from devtools.provider.server import serve

__all__ = ["main"]


def main() -> None:
    """Serve on 127.0.0.1 until it is ended."""
    parser = argparse.ArgumentParser(prog="devtools.provider", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", default="")
    parser.add_argument("--forget", action="store_true", help="keep arrivals in the log alone")
    options = parser.parse_args()
    serve(options.port, log=options.log, listening=_say, keep=not options.forget)


def _say(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
