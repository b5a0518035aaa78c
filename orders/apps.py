from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Order intake and the life of an order."""

    name = "orders"
