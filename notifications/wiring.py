"""How the notifications are wired: their paths, their topics, and who makes them ready and sends them."""

from __future__ import annotations

from notifications.bounds import MAX_BATCH_BYTES
from notifications.events import PENDING_EVENTS, STATUS_TOPIC, NotificationStatusChanged
from outbox.declaration import Every, Route, TaskQueue
from outbox.watching import Alarm
from restapi.declaration import App, Path, Socket

__all__ = ["WIRING"]


def _path(
    pattern: str, view: str, *, write: str = "notifications:write", max_body_bytes: int = 0
) -> Path:
    return Path(
        pattern=f"api/v1/{pattern}",
        view=f"notifications.api.{view}",
        read="notifications:read",
        write=write,
        max_body_bytes=max_body_bytes,
    )


_ALARMS = (
    Alarm(
        name="NotificationsNotReady",
        figure="notifications_oldest_not_ready_seconds",
        bound=60,
        seconds=60,
        critical=True,
        sentence="An accepted notification has waited {value} to be made ready.",
    ),
    Alarm(
        name="NotificationsWait",
        figure='notifications_oldest_waiting_seconds{reason="ready"}',
        bound=60,
        seconds=60,
        critical=True,
        sentence="Ready notifications have waited {value}, and nothing delays them.",
    ),
    Alarm(
        name="NotificationsPaced",
        figure='notifications_oldest_waiting_seconds{reason="paced"}',
        bound=600,
        seconds=300,
        sentence="Notifications have waited {value} for their turn under the limit.",
    ),
    Alarm(
        name="ProviderAsksToWait",
        figure='notifications_oldest_waiting_seconds{reason="held"}',
        bound=900,
        seconds=300,
        sentence="Notifications have waited {value}, because their provider asks to wait.",
    ),
    Alarm(
        name="ScheduleLate",
        figure='notifications_oldest_waiting_seconds{reason="scheduled"}',
        bound=10,
        seconds=60,
        critical=True,
        sentence="Scheduled notifications are {value} past their time.",
    ),
    Alarm(
        name="ChannelPaused",
        figure="notification_channel_paused",
        bound=0,
        seconds=1800,
        sentence="The channel is paused: its notifications are not sent until somebody resumes it.",
    ),
    Alarm(
        name="ProviderFails",
        figure="notification_breaker_state",
        bound=0,
        seconds=300,
        critical=True,
        sentence="The provider fails: its breaker is not closed.",
    ),
    Alarm(
        name="NotificationsExpire",
        figure="notifications_expired_total",
        bound=0,
        rises=600,
        sentence="Notifications that failed within ten minutes because they were not sent in time: {value}.",
    ),
    Alarm(
        name="LateSends",
        figure="notification_late_sends_total",
        bound=0,
        rises=600,
        sentence="Senders that reported after their lease had ended: {value}. A provider may have been called twice, or after a cancel.",
    ),
)

# Handlers, queues and workers of each priority are its own. They have no reset, so they
# cannot be replayed: a notification is made ready once, and nothing is sent twice.
WIRING = App(
    routes=tuple(
        Route(
            handler=f"ready_{priority}",
            event=(event,),
            topic=event.topic,
            ordered=False,
            queue=f"notifications-{priority}",
        )
        for priority, event in PENDING_EVENTS.items()
    ),
    publishes=(*PENDING_EVENTS.values(), NotificationStatusChanged),
    for_others=(STATUS_TOPIC,),
    queues=(
        *(
            TaskQueue(f"{what}-{priority}", role=f"notifications-{priority}")
            for priority in PENDING_EVENTS
            for what in ("notifications", "deliver")
        ),
        # Schedules and leases: an audit that takes long must not stand in front of them.
        TaskQueue("notifications-times", role="notifications-normal"),
    ),
    beat=(
        *(
            Every(5.0, f"notifications.deliver_{priority}", queue=f"deliver-{priority}")
            for priority in PENDING_EVENTS
        ),
        Every(0.5, "notifications.keep_times", queue="notifications-times"),
        Every(5.0, "notifications.measure_waiting"),
        Every(5.0, "notifications.fold_figures"),
        Every(60.0, "notifications.prune"),
    ),
    letters=("notifications.letters.FAILED_NOTIFICATIONS",),
    hops=("notifications.delivery.measure.hops",),
    alarms=_ALARMS,
    paths=(
        _path("notifications", "views.NotificationsView"),
        _path("notifications/batch", "batch_views.BatchesView", max_body_bytes=MAX_BATCH_BYTES),
        _path("notifications/<str:notification_id>", "views.NotificationView"),
        _path("notifications/<str:notification_id>/attempts", "views.AttemptsView"),
        _path("notifications/<str:notification_id>/cancel", "views.CancelNotificationView"),
        _path("notifications/<str:notification_id>/retry", "views.RetryView"),
        _path("batches/<str:batch_id>", "batch_views.BatchView"),
        _path("batches/<str:batch_id>/cancel", "batch_views.CancelBatchView"),
        _path("templates", "template_views.TemplatesView", write="templates:write"),
        _path(
            "templates/<str:template_id>", "template_views.TemplateView", write="templates:write"
        ),
        # Nothing is written.
        _path(
            "templates/<str:template_id>/preview",
            "template_views.PreviewView",
            write="notifications:read",
        ),
        _path("metrics", "views.NotificationMetricsView"),
    ),
    hot_paths=(
        "notifications.api.commands.CREATE_NOTIFICATION",
        "notifications.api.commands.READ_NOTIFICATION",
    ),
    sockets=(
        Socket(
            path=Path(pattern="ws", read="notifications:read"),
            consumer="notifications.consumers.StatusFeed",
        ),
    ),
    status_logs=("notifications.realtime.STATUS_LOG",),
    grants=("notifications:all",),
    tag="notifications",
)
