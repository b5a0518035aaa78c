"""Every path of the web process."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

from eventsite import health
from restapi import errors

urlpatterns = [
    path("", include("orders.urls")),
    path("", include("analytics.urls")),
    path("", include("django_prometheus.urls")),
    path("health", health.alive),
    path("health/ready", health.ready),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),
]

handler404 = errors.not_found
handler500 = errors.server_error
