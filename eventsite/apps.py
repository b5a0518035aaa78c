from django.apps import AppConfig


class EventsiteConfig(AppConfig):
    """The composition root: wires apps, settings and processes."""

    name = "eventsite"

    def ready(self) -> None:
        from django.conf import settings

        from eventsite import logs, tracing
        from eventsite.celery import app

        logs.configure(settings.LOG_LEVEL)
        # Now, not when a worker starts: the checks of the event map look every task up.
        app.autodiscover_tasks(force=True)
        tracing.configure()
