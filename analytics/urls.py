from django.urls import path

from analytics.api import views

urlpatterns = [
    path("analytics/summary", views.SummaryView.as_view()),
    path("analytics/metrics", views.SalesMetricsView.as_view()),
    path("analytics/top-products", views.TopProductsView.as_view()),
]
