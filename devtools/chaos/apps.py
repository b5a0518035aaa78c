from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Makes this process misbehave as its environment says; see misbehave.py and mutants.py."""

    name = "devtools.chaos"

    def ready(self) -> None:
        from devtools.chaos import environment, misbehave, mutants
        from devtools.chaos.notifications import misbehave as notifications
        from devtools.chaos.relay import misbehave as relay

        for name in environment.mutants():
            if name in relay.BREAKS:
                relay.BREAKS[name]()
            else:
                mutants.break_guard(name)
        misbehave.install()
        notifications.install()
        relay.install()
