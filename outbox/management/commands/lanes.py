"""Look at lanes, pause and resume them."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from outbox.envelope import rfc3339
from outbox.lanes import pause
from outbox.lanes.pause import LaneState


class Command(BaseCommand):
    """Takes effect at once and lasts until it is undone; no process is restarted."""

    help = "Lists lanes, or keeps drains from claiming some of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="list lanes that are paused, held or have events")
        listing.add_argument("--all", action="store_true", help="list empty lanes too")
        for name in ("pause", "resume"):
            action = actions.add_parser(name)
            action.add_argument("lanes", nargs="+", metavar="LANE", help="numbers, or `all`")
            action.add_argument("--reason", default="", help="kept with the name of who did it")
            action.add_argument("--by", default=getpass.getuser(), help="default: your login")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["action"]:
            case "list":
                self._list(everything=options["all"])
            case "pause":
                changed = self._attempt(pause.pause_lanes, options)
                self.stdout.write(f"Paused: {changed or 'none, they were paused before'}.")
            case "resume":
                changed = self._attempt(pause.resume_lanes, options)
                self.stdout.write(f"Resumed: {changed or 'none, they were not paused'}.")

    def _attempt(self, change: Any, options: dict[str, Any]) -> list[int]:
        try:
            lanes = self._numbers(options["lanes"])
            changed: list[int] = change(lanes, reason=options["reason"], by=options["by"])
        except (pause.LaneBusy, pause.UnknownLane) as error:
            raise CommandError(str(error)) from error
        return changed

    def _numbers(self, words: list[str]) -> list[int]:
        if words == ["all"]:
            return [state.lane for state in pause.lane_states()]
        try:
            return sorted({int(word) for word in words})
        except ValueError as error:
            raise CommandError("Give lane numbers, or `all`.") from error

    def _list(self, *, everything: bool) -> None:
        states = pause.lane_states()
        shown = [
            each for each in states if everything or each.paused or each.pending or each.holder
        ]
        for state in shown:
            self.stdout.write(_line(state))
        paused = sum(state.paused for state in states)
        self.stdout.write(f"{len(states)} lanes, {paused} paused, {len(shown)} shown.")


def _line(state: LaneState) -> str:
    parts = [f"lane {state.lane:2}"]
    if state.paused:
        at = rfc3339(state.at) if state.at else ""
        parts.append(f"PAUSED by {state.by} at {at}: {state.reason or 'no reason given'}")
    if state.pending:
        more = "+" if state.pending == pause.COUNTED else ""
        parts.append(f"{state.pending}{more} events wait, {state.oldest_seconds:.1f} s")
    if state.holder:
        parts.append(f"held by {state.holder} for {state.held_seconds:.1f} s")
    return "  ".join(parts)
