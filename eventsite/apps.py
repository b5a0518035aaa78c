import gc

from django.apps import AppConfig


class EventsiteConfig(AppConfig):
    """The composition root: wires apps, settings and processes."""

    name = "eventsite"

    def ready(self) -> None:
        from django.conf import settings

        # Registers the checks of releases and of the wiring.
        from eventsite import checks, wiring_checks  # noqa: F401
        from eventsite.celery import app
        from eventsite.telemetry import logs, tracing

        logs.configure(settings.LOG_LEVEL, settings.LOG_FORMAT)
        # Now, not when a worker starts: the checks of the event map look every task up.
        app.autodiscover_tasks(force=True)
        tracing.configure()
        gc.enable()  # manage.py has disabled it
