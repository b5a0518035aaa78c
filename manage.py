#!/usr/bin/env python
"""Django's command line for this project."""

import gc
import os
import sys


def main() -> None:
    gc.disable()  # until the apps are loaded: nothing of that is garbage
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")
    from django.core.management import execute_from_command_line

    from eventsite.telemetry import tracing

    try:
        execute_from_command_line(sys.argv)
    finally:
        tracing.stop()


if __name__ == "__main__":
    main()
