"""Result files as the tables of docs/reliability.md: `python -m devtools.chaos.markdown FILE…`.

Of a scenario that is in several files the last one counts. A line says what all was measured on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["measured_on", "table"]

INVARIANTS = [f"I{number}" for number in range(1, 11)]
OF_NOTIFICATIONS = [f"N{number}" for number in range(1, 12)]
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")


def table(results: Sequence[dict[str, Any]]) -> str:
    """Scenarios, those of notifications in a table of their own, or mutants as Markdown."""
    if any(result.get("mutant") for result in results):
        return _mutants(results)
    sends = [each for each in results if _is_of_notifications(each)]
    events = [each for each in results if each not in sends]
    tables = [(events, INVARIANTS), (sends, OF_NOTIFICATIONS)]
    return "\n\n".join(_scenarios(found, names) for found, names in tables if found)


def _is_of_notifications(result: dict[str, Any]) -> bool:
    return any(verdict["invariant"] in OF_NOTIFICATIONS for verdict in result["verdicts"])


def _scenarios(results: Sequence[dict[str, Any]], invariants: Sequence[str]) -> str:
    head = ["scenario", *invariants, "besides", ""]
    lines = [head, ["---"] * len(head)]
    for result in results:
        found = {verdict["invariant"]: verdict for verdict in result["verdicts"]}
        cells = [_cell(found.get(name), result["expected"]) for name in invariants]
        besides = [*result["broken"], *(f"{k}: {v}" for k, v in result["figures"].items())]
        word = "ok" if result["ok"] else "**failed**"
        lines.append([f"`{result['scenario']}`", *cells, "; ".join(besides), word])
    return _joined(lines)


def _cell(verdict: dict[str, Any] | None, expected: dict[str, str]) -> str:
    if verdict is None:
        return "-"
    if not verdict["damage"]:
        return str(verdict["figure"])
    word = "expected" if verdict["invariant"] in expected else "**damaged**"
    return f"{verdict['damage']} {word}"


def _mutants(results: Sequence[dict[str, Any]]) -> str:
    head = ["mutant", "scenario", "what is broken", "announced", "seen", ""]
    lines = [head, ["---"] * len(head)]
    for result in results:
        seen = [f"{v['invariant']}: {v['damage']}" for v in result["verdicts"] if v["damage"]]
        notes = [*result["broken"], *([result["redundant"]] if result.get("redundant") else [])]
        lines.append(
            [
                f"`{result['mutant']}`",
                f"`{result['scenario']}`",
                result["title"],
                result["announced"],
                "; ".join([*seen, *notes]),
                "caught" if result["ok"] else "**missed**",
            ]
        )
    return _joined(lines)


def _joined(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |" for cells in lines
    )


def measured_on(runs: Sequence[dict[str, Any]]) -> str:
    """Machine, load and settings of all runs; what differs between them is a list or a range."""
    machines = [run["machine"] for run in runs]
    busy = [machine["load_average_before"] for machine in machines]
    database = [
        f"PostgreSQL {settings['server_version']} with "
        + ", ".join(f"{name} {settings[name]}" for name in DURABILITY)
        for settings in (machine["postgresql"] for machine in machines)
    ]
    return "; ".join(
        [
            _different(machine["date"][:16] + " UTC" for machine in machines),
            "commit " + _different(run["commit"] for run in runs),
            _different(f"{m['cores']} cores of {m['processor']}" for m in machines),
            _different(f"{machine['memory_gib']} GiB" for machine in machines),
            f"load average before a run {min(busy):.0f} to {max(busy):.0f}",
            _different("quick" if run["quick"] else "full lengths" for run in runs),
            "--load " + _different(str(machine["load"]) for machine in machines),
            _different(database),
        ]
    )


def _different(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def main(paths: Sequence[str]) -> None:
    """Print what it was measured on, and one table."""
    runs = [json.loads(Path(path).read_text()) for path in paths]
    results: dict[str, dict[str, Any]] = {}
    for run in runs:
        for result in run["results"]:
            results[result.get("mutant") or result["scenario"]] = result
    print(measured_on(runs), table(list(results.values())), sep="\n\n")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
