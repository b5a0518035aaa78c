from django.urls import path

from orders.api import views

urlpatterns = [
    path("orders", views.OrdersView.as_view()),
    path("orders/<str:order_id>", views.OrderView.as_view()),
    path("orders/<str:order_id>/pay", views.PayView.as_view()),
    path("orders/<str:order_id>/ship", views.ShipView.as_view()),
    path("orders/<str:order_id>/cancel", views.CancelOrderView.as_view()),
]
