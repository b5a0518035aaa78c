from django.urls import path

from notifications.api import batch_views, template_views, views

urlpatterns = [
    path("api/v1/notifications", views.NotificationsView.as_view()),
    path("api/v1/notifications/batch", batch_views.BatchesView.as_view()),
    path("api/v1/notifications/<str:notification_id>", views.NotificationView.as_view()),
    path("api/v1/notifications/<str:notification_id>/attempts", views.AttemptsView.as_view()),
    path(
        "api/v1/notifications/<str:notification_id>/cancel", views.CancelNotificationView.as_view()
    ),
    path("api/v1/notifications/<str:notification_id>/retry", views.RetryView.as_view()),
    path("api/v1/batches/<str:batch_id>", batch_views.BatchView.as_view()),
    path("api/v1/batches/<str:batch_id>/cancel", batch_views.CancelBatchView.as_view()),
    path("api/v1/templates", template_views.TemplatesView.as_view()),
    path("api/v1/templates/<str:template_id>", template_views.TemplateView.as_view()),
    path("api/v1/templates/<str:template_id>/preview", template_views.PreviewView.as_view()),
    path("api/v1/metrics", views.NotificationMetricsView.as_view()),
]
