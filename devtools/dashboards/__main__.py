"""`python -m devtools.dashboards`: write the dashboards that Grafana of the Compose stack shows."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "eventsite.settings.local")

from devtools.dashboards.files import FOLDER, texts


def main() -> None:
    """Write what has changed, and delete what is not made any more."""
    made = texts()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    sys.stdout.write(f"{len(made)} dashboards in {FOLDER}\n")


if __name__ == "__main__":
    main()
