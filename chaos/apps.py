from django.apps import AppConfig
from django.conf import settings


class ChaosConfig(AppConfig):
    """Makes this process misbehave as told; see misbehave.py and mutants.py."""

    name = "chaos"

    def ready(self) -> None:
        from chaos import misbehave, mutants

        for name in settings.CHAOS_MUTANTS:
            mutants.break_guard(name)
        misbehave.install()
