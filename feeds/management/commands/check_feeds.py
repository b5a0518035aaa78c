"""Compare stored entries, cached feeds and numbers of followers with the truth."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from feeds import cache
from feeds.cache import CacheUnavailable
from feeds.checking.cached import compare_cached
from feeds.checking.compare import DIFFERENCES_SHOWN, FeedComparison, compare_entries
from feeds.checking.followers import WrongCount, recount, wrong_counts
from feeds.checking.rebuild import USERS_AT_ONCE, all_users, rebuild, sampled_users
from feeds.management.arguments import positive, user_id
from feeds.queries import is_known

CACHED_AT_ONCE = 500


class Command(BaseCommand):
    """Exit code 1 on a difference. What open work still owes is none, and neither is litter."""

    help = "Compares feeds with the truth, in one snapshot; exits 1 on a difference."

    def add_arguments(self, parser: ArgumentParser) -> None:
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--user", type=user_id, help="one user; default: all")
        whose.add_argument(
            "--sample", type=positive, help="check this many users, chosen at random"
        )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="rebuild users with a difference, delete entries that readers hide, recount followers",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._check(options)
        except CacheUnavailable as error:
            raise CommandError(f"{error} Run the command again when it answers.") from error

    def _check(self, options: dict[str, Any]) -> None:
        user = options["user"]
        if user is not None and not is_known(user):
            self.stdout.write(f"User {user!r} has no post, no follow and no entry.")
        found, wrong = self._compare(user, options["sample"])
        self._tell(found, wrong)
        if options["repair"]:
            self._repair(found, wrong)
        if different := found.different + len(wrong):
            repair = "" if options["repair"] else " --repair removes them."
            raise CommandError(f"{different} differences.{repair}")
        self.stdout.write("All feeds equal the truth.")

    def _tell(self, found: FeedComparison, wrong: Sequence[WrongCount]) -> None:
        counts = found.counts
        self.stdout.write(
            f"{found.users} users: {counts['right']} entries are right, {counts['litter']} are litter"
            f" (hidden from readers), {counts['owed']} are owed by open work;"
            f" {counts['not backfilled']} follows are merged until their backfill;"
            f" {counts['cached']} cached feeds compared, {counts['cached, newer']} not."
        )
        if counts["cached, newer"]:
            self.stdout.write(
                f"{counts['cached, newer']} cached feeds were not compared: they were filled behind the"
                " snapshot of the comparison. Run the command again for them."
            )
        if counts["cached, not believed"]:
            self.stdout.write(
                f"{counts['cached, not believed']} cached feeds are older than a change of theirs: no"
                " reader is shown them."
            )
        for each in found.differences:
            by = f" by {each.author_id}" if each.author_id else ""
            self.stdout.write(f"{each.user_id}: post {each.post_id}{by} is {each.what}")
        for count in wrong[:DIFFERENCES_SHOWN]:
            self.stdout.write(
                f"{count.author_id}: {count.kept} followers are counted, and {count.right} should be"
            )
        more = found.different - len(found.differences) + len(wrong[DIFFERENCES_SHOWN:])
        if more:
            self.stdout.write(f"… and {more} more")

    def _repair(self, found: FeedComparison, wrong: Sequence[WrongCount]) -> None:
        if users := sorted(found.users_different):
            for some in _pieces(users):
                rebuild(some)
            self.stdout.write(f"{len(users)} users were rebuilt.")
        if wrong:
            for some in _pieces([each.author_id for each in wrong]):
                recount(some)
            self.stdout.write(f"The followers of {len(wrong)} users were recounted.")

    def _compare(
        self, user: str | None, sample: int | None
    ) -> tuple[FeedComparison, Sequence[WrongCount]]:
        """Everything in one snapshot, but for cached feeds that were filled behind it: each of them is
        compared in a newer one."""
        found = FeedComparison()
        newer: list[str] = []
        with _one_snapshot():
            chosen = _chosen(user, sample)
            cached = sorted(cache.cached_users()) if chosen is None else chosen
            for users in _pieces(cached, CACHED_AT_ONCE):
                newer += compare_cached(users, found)
            for users in all_users() if chosen is None else _pieces(chosen):
                compare_entries(users, found)
            wrong = wrong_counts(chosen)
        for users in _pieces(newer, CACHED_AT_ONCE):
            with _one_snapshot():
                found.counts["cached, newer"] += len(compare_cached(users, found))
        return found, wrong


@contextmanager
def _one_snapshot() -> Iterator[None]:
    """A transaction that reads in one snapshot, of this moment."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SELECT")  # the first statement takes it
        yield


def _chosen(user: str | None, sample: int | None) -> list[str] | None:
    """None: everybody."""
    if user is not None:
        return [user]
    return None if sample is None else sampled_users(sample)


def _pieces(users: Sequence[str], size: int = USERS_AT_ONCE) -> Iterable[Sequence[str]]:
    return (users[at : at + size] for at in range(0, len(users), size))
