from django.urls import path
from django.views.generic import RedirectView

from operations import views
from restapi.errors import reads_only

urlpatterns = [
    path("ops", reads_only(RedirectView.as_view(pattern_name="ops"))),
    path("ops/", views.page, name="ops"),
    path("ops/live", views.live),
    path("ops/status.json", views.status),
    path("ops/journey", views.journey, name="ops-journey"),
    path("ops/break-glass", views.break_glass, name="ops-break-glass"),
]
