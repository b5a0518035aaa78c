"""A real Prometheus, with the rules and the scrape configuration of the Compose stack."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from devtools.testing.patience import PATIENCE
from devtools.testing.processes import REPOSITORY, free_port, running

__all__ = ["FOLDER", "Prometheus", "prometheus"]

FOLDER = REPOSITORY / "docker" / "prometheus"
OFTEN = "1s"
# By which labels a query may ask for what does not happen while all is well.
_OF_TROUBLE = ("status", "outcome", "code")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Its API."""

    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """What the API answers under `data`."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def returns(self, query: str) -> bool:
        """Whether the query has a result now; raises HTTPError for one that is none."""
        return bool(self.get("query", query=query)["result"])

    def has(self, selector: str) -> bool:
        """Whether there is such a series. Labels of what does not happen while all is well are
        passed over."""
        name, _, labels = selector.rstrip("}").partition("{")
        kept = [each for each in _matchers(labels) if not each.startswith(_OF_TROUBLE)]
        return self.returns(f"{name}{{{','.join(kept)}}}")


def _matchers(labels: str) -> list[str]:
    """`a="b",c=~"d|e"` as its parts; none of ours has a comma in a value."""
    return [each.strip() for each in labels.split(",") if each.strip()]


@contextmanager
def prometheus(folder: Path, address_of: Callable[[str, int], str]) -> Iterator[Prometheus]:
    """Prometheus on docker/prometheus/prometheus.yml, entered when it answers.

    `address_of`: host:port on this machine of a service of the Compose stack and the port that is
    scraped there. `folder` is empty and takes its files.
    """
    shutil.copy(FOLDER / "alerts.yml", folder)
    port = free_port()
    given = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    given["global"] = {"scrape_interval": OFTEN, "evaluation_interval": OFTEN}
    for job in given["scrape_configs"]:
        targets = [
            f"127.0.0.1:{port}" if service == "localhost" else address_of(service, number)
            for service, number in _services(job)
        ]
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": targets}]
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(given))
    command = (
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        f"--web.listen-address=127.0.0.1:{port}",
    )
    environment: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    with running(command, environment, f"http://127.0.0.1:{port}/-/ready"):
        yield Prometheus(port)


def _services(job: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for lookup in job.get("dns_sd_configs", []):
        yield from ((name, lookup["port"]) for name in lookup["names"])
    for static in job.get("static_configs", []):
        for target in static["targets"]:
            name, _, number = target.partition(":")
            yield name, int(number)
