from django.apps import AppConfig


class FeedsConfig(AppConfig):
    """Posts, follows, and the feeds that are made of them."""

    name = "feeds"
