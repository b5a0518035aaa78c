"""Every path of the web process."""

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path, re_path
from django.utils.module_loading import import_string
from django.views.generic import RedirectView

from eventsite.web import health, openapi
from eventsite.web.home import HomeView
from restapi import errors

urlpatterns = [
    path("", HomeView.as_view(), name="home"),
    *(path("", include(app.urls)) for app in settings.WIRING.web if app.urls),
    *(
        path(each.pattern, import_string(each.view).as_view())
        for each in settings.WIRING.paths
        if each.view
    ),
    path("metrics", health.metrics),
    path("health", health.alive),
    path("health/ready", health.ready),
    path("openapi.json", openapi.DocumentView.as_view()),
    path("swagger", errors.reads_only(RedirectView.as_view(pattern_name="swagger"))),
    path("swagger/", errors.reads_only(openapi.SwaggerView.as_view()), name="swagger"),
    path("admin", errors.reads_only(RedirectView.as_view(pattern_name="admin:index"))),
    path("admin/", admin.site.urls),
]
if settings.SERVE_STATIC:
    # "insecure" is Django's word for slow: it looks each file up in the installed apps.
    urlpatterns.append(
        re_path(r"^static/(?P<path>.*)$", errors.reads_only(serve), {"insecure": True})
    )

handler400 = errors.bad_request
handler404 = errors.not_found
handler500 = errors.server_error
