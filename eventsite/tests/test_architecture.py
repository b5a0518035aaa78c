"""What import rules cannot see: relations between the tables of different apps."""

from __future__ import annotations

from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db.models import Model

OURS = {
    app.label
    for app in apps.get_app_configs()
    if app.name.partition(".")[0] in {path.name for path in Path(settings.BASE_DIR).iterdir()}
}


def test_no_relation_crosses_an_app() -> None:
    crossing = [
        f"{model.__name__}.{field.name} -> {related.__name__}"
        for model in apps.get_models()
        if model._meta.app_label in OURS
        for field in model._meta.get_fields()
        if isinstance(related := field.related_model, type)
        and issubclass(related, Model)
        and related._meta.app_label != model._meta.app_label
    ]
    assert crossing == []


def test_there_are_models_to_walk() -> None:
    labels = {model._meta.app_label for model in apps.get_models()}
    assert {"outbox", "orders", "analytics", "apikeys", "probe"} <= labels
