"""The phases of an upgrade, one after the other, under load: there, back, and there again.

Whatever a deployment may have side by side stands side by side for a while: old code on today's
tables, either web with either workers, two beats, two bridges in one group.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from devtools.localstack import LocalStack
from devtools.localstack.errors import StartFailed
from devtools.localstack.spawn import spawn
from devtools.testing.account import Account, take_account
from devtools.upgrade.evidence import FoundState, Left, complaints, find, left_for_todays_code
from devtools.upgrade.fleet import Fleet
from devtools.upgrade.load import Crowd, Doors, Promises
from devtools.upgrade.release import behind

__all__ = ["SeenUpgrade", "play"]

SETTLE_SECONDS = 90.0
KILLED = ("worker-effects", "bridge")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenUpgrade:
    """What the run saw.

    left       events of the type that only new code knows, after only old workers ran
    back_again the same on the way back, when new workers had just gone, and after old code alone
    back       apps whose migrations were taken back while old code ran, with the one they went to
    audit      what `manage.py audit` says in the end; empty: it found nothing missing
    feeds      the same of `manage.py check_feeds`
    complaints lines of level error or critical: process and event -> how many
    """

    promises: Promises
    left: Left
    back_again: tuple[Left, Left]
    back: dict[str, str]
    account: Account
    found: FoundState
    audit: str
    feeds: str
    complaints: dict[str, int]


def play(
    stack: LocalStack, old: Fleet, new: Fleet, *, seconds: float, say: Callable[[str], None]
) -> SeenUpgrade:
    """All phases, each `seconds` long. Raises LocalStackError when a process or a command fails."""
    stage = _Stage(old, new, Doors(), seconds, say)
    crowd = Crowd(stage.doors)
    old.prepare()
    old.start(old.names)
    stage.only_old()
    with crowd:
        stage.hold("old code on its own tables")
        new.prepare()
        with _numbers(stack, new):
            stage.hold("old code on today's tables")
            left = stage.there(stack.env["DATABASE_URL"])
            back, back_again = stage.back(stack.env["DATABASE_URL"])
            stage.there_again()
    say("no more orders; until everything has settled")
    environment = {**stack.env, **new.release.settings}
    account = take_account(environment, within=SETTLE_SECONDS)
    return SeenUpgrade(
        promises=crowd.promises,
        left=left,
        back_again=back_again,
        back=back,
        account=account,
        found=find(stack.env["DATABASE_URL"], crowd.promises),
        audit=_complaint(new, "audit"),
        feeds=_complaint(new, "check_feeds"),
        complaints=dict(
            complaints(unit.log for fleet in (old, new) for unit in fleet.units.values())
        ),
    )


@dataclass(frozen=True, slots=True)
class _Stage:
    """Both fleets, the doors of the customers, and how long a phase lasts."""

    old: Fleet
    new: Fleet
    doors: Doors
    seconds: float
    say: Callable[[str], None]

    def hold(self, what: str) -> None:
        """A phase."""
        self.say(what)
        time.sleep(self.seconds)

    def only_old(self) -> None:
        """Requests go to the old web process, which knows no deliveries."""
        self.doors.todays = ()
        self.doors.every = (self.old.address,)

    def only_new(self) -> None:
        self.doors.every = self.doors.todays = (self.new.address,)

    def both(self) -> None:
        self.doors.every = (self.old.address, self.new.address)
        self.doors.todays = (self.new.address,)

    def there(self, database: str) -> Left:
        """From old code on today's tables to today's code alone; see Seen.left."""
        old, new = self.old, self.new
        new.start([new.web])
        self.both()
        self.hold("both web processes, old workers and bridge")
        self.only_new()
        old.stop([old.web])
        self.hold("today's web, old workers and bridge")
        left = left_for_todays_code(database)

        new.start(new.behind_web)
        self.hold("today's web, workers and bridges of both")
        old.start([old.web])
        self.only_old()
        old.kill(KILLED)
        old.stop(old.behind_web)
        new.stop([new.web])
        self.hold("old web, today's workers and bridge")

        new.start([new.web])
        self.only_new()
        old.stop([old.web])
        self.hold("today's code alone")
        return left

    def back(self, database: str) -> tuple[dict[str, str], tuple[Left, Left]]:
        """To old code alone, and the migrations that both have apps for; see Seen.back and
        Seen.back_again."""
        old, new = self.old, self.new
        old.prepare()
        old.start(old.names)
        self.both()
        self.hold("on the way back: all of both")
        new.kill(KILLED)
        new.stop(new.behind_web)
        self.hold("on the way back: both web processes, old workers and bridge")
        self.only_old()
        new.stop([new.web])
        before = left_for_todays_code(database)
        migrations = dict(behind(old.release, new.release))
        for app, migration in migrations.items():
            new.manage("migrate", app, migration)
        self.hold(f"old code, migrations taken back ({', '.join(migrations) or 'there are none'})")
        return migrations, (before, left_for_todays_code(database))

    def there_again(self) -> None:
        """To today's code, all at once."""
        old, new = self.old, self.new
        new.prepare()
        new.start(new.names)
        self.only_new()
        old.stop(old.names)
        self.hold("today's code again")


def _complaint(fleet: Fleet, command: str) -> str:
    try:
        fleet.manage(command)
    except StartFailed as error:
        return str(error)
    return ""


@contextmanager
def _numbers(stack: LocalStack, fleet: Fleet) -> Iterator[None]:
    """The probe's numbers beside the orders, which show whether order was kept."""
    log = stack.state.log("numbers")
    with log.open("ab") as output:
        child = spawn(
            [sys.executable, "-m", "devtools.testing.probe_load"],
            environment={**stack.env, **fleet.release.settings, "LOG_LEVEL": "ERROR"},
            directory=fleet.release.folder,
            output=output,
        )
        try:
            yield
            if child.poll() is not None:
                raise StartFailed("the probe's load", f"exit code {child.returncode}", log)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()
