from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Makes this process misbehave as told; see misbehave.py and mutants.py."""

    name = "chaos"

    def ready(self) -> None:
        from chaos import environment, misbehave, mutants

        for name in environment.mutants():
            mutants.break_guard(name)
        misbehave.install()
