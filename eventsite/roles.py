"""The worker roles: the one table of the workers that a deployment runs, for `manage.py run_worker
ROLE`. Which queues a role serves follows from the apps (`TaskQueue` in their wiring.py)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ROLES", "Role"]


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of worker.

    processes  how many of Celery's processes it has where WORKER_CONCURRENCY says nothing
    """

    name: str
    processes: int

    @property
    def process(self) -> str:
        """Name of such a worker in the local stack, in Compose, in logs and spans."""
        return f"worker-{self.name}"


ROLES = {
    role.name: role
    for role in (
        # The drain. One process of it: a second would only share the lanes with it.
        Role("outbox", processes=1),
        # Everything else: the effects of events, and upkeep.
        Role("effects", processes=2),
        # Notifications of one priority each. With a provider that hangs, a sender claims for 3 s and
        # then waits out its timeout (5 s, if nothing else is said), and a new one begins every 3 s: that
        # is three at a time. The fourth process makes ready, and keeps schedules and leases. With longer
        # timeouts, or more NOTIFICATION_SENDERS, there must be more.
        Role("notifications-high", processes=4),
        Role("notifications-normal", processes=4),
        Role("notifications-low", processes=4),
    )
}
