"""Orders: their state, its constraints and the legal moves. No I/O."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

__all__ = ["ALLOWED_NEXT", "Order", "OrderChange", "OrderLine", "OrderStatus", "ProcessedEvent"]


class OrderStatus(models.TextChoices):
    """The life of an order."""

    CREATED = "CREATED"
    PAID = "PAID"
    SHIPPED = "SHIPPED"
    CANCELLED = "CANCELLED"


ALLOWED_NEXT: dict[OrderStatus, tuple[OrderStatus, ...]] = {
    OrderStatus.CREATED: (OrderStatus.PAID, OrderStatus.CANCELLED),
    OrderStatus.PAID: (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
    OrderStatus.SHIPPED: (),
    OrderStatus.CANCELLED: (),
}


class Order(models.Model):
    """One accepted order, whichever body it came in. Ids are uuid7: they grow with time."""

    id = models.UUIDField(primary_key=True)
    customer_id = models.CharField(max_length=255)
    total = models.DecimalField(max_digits=20, decimal_places=2)
    status = models.CharField(max_length=16, choices=OrderStatus)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "orders"
        # One for each way a list is narrowed; all end in its order.
        indexes = [
            models.Index(fields=["created_at", "id"], name="orders_newest"),
            models.Index(fields=["customer_id", "created_at", "id"], name="orders_of_customer"),
            models.Index(fields=["status", "created_at", "id"], name="orders_of_status"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(total__gte=0), name="orders_total_not_negative"
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=OrderStatus.values), name="orders_status_known"
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class OrderLine(models.Model):
    """One item of an order."""

    id = models.BigAutoField(primary_key=True)
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product_id = models.CharField(max_length=255)
    quantity = models.IntegerField()
    price = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        db_table = "order_lines"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(quantity__gte=1), name="order_lines_quantity_positive"
            ),
            models.CheckConstraint(
                condition=models.Q(price__gte=0), name="order_lines_price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product_id}"


class OrderChange(models.Model):
    """One step in an order's history; append-only. `event_ids` are all events published with
    it: the one on topic order-events first, then those of other topics."""

    id = models.BigAutoField(primary_key=True)
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="changes")
    from_status = models.CharField(max_length=16, null=True)
    to_status = models.CharField(max_length=16)
    reason = models.TextField(blank=True, db_default="")
    actor = models.CharField(max_length=255)
    at = models.DateTimeField()
    event_ids = ArrayField(models.UUIDField())

    class Meta:
        db_table = "order_changes"

    def __str__(self) -> str:
        return f"{self.from_status} -> {self.to_status}"


class ProcessedEvent(models.Model):
    """The only effect of topic orders.created."""

    id = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    user_id = models.CharField(max_length=255)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    processed_at = models.DateTimeField(db_default=models.Func(function="clock_timestamp"))

    class Meta:
        db_table = "processed_events"

    def __str__(self) -> str:
        return str(self.event_id)
