"""Result files as the tables of docs/reliability.md: `python -m chaos.markdown FILE…`.

Of a scenario that is in several files the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["table"]

INVARIANTS = [f"I{number}" for number in range(1, 11)]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Scenarios or mutants as Markdown."""
    mutants = any(result.get("mutant") for result in results)
    return _mutants(results) if mutants else _scenarios(results)


def _scenarios(results: Sequence[dict[str, Any]]) -> str:
    head = ["scenario", *INVARIANTS, "besides", ""]
    lines = [head, ["---"] * len(head)]
    for result in results:
        found = {verdict["invariant"]: verdict for verdict in result["verdicts"]}
        cells = [_cell(found.get(name), result["expected"]) for name in INVARIANTS]
        besides = [*result["broken"], *(f"{k}: {v}" for k, v in result["figures"].items())]
        word = "ok" if result["ok"] else "**failed**"
        lines.append([f"`{result['scenario']}`", *cells, "; ".join(besides), word])
    return _joined(lines)


def _cell(verdict: dict[str, Any] | None, expected: dict[str, str]) -> str:
    if verdict is None:
        return "-"
    if not verdict["damage"]:
        return str(verdict["figure"])
    return f"{verdict['damage']}{'' if verdict['invariant'] in expected else ' **damaged**'}"


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
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(paths: Sequence[str]) -> None:
    """Print one table."""
    results: dict[str, dict[str, Any]] = {}
    for path in paths:
        for result in json.loads(Path(path).read_text())["results"]:
            results[result.get("mutant") or result["scenario"]] = result
    print(table(list(results.values())))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
