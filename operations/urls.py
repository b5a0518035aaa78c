from django.urls import path
from django.views.generic import RedirectView

from operations import acting, views
from restapi.errors import reads_only

urlpatterns = [
    path("ops", reads_only(RedirectView.as_view(pattern_name="ops"))),
    path("ops/", views.page, name="ops"),
    path("ops/live", views.live),
    path("ops/charts", views.charts),
    path("ops/status.json", views.status),
    path("ops/journey", views.journey, name="ops-journey"),
    path("ops/act/<str:name>", acting.act, name="ops-act"),
    path("ops/done/<str:entry_id>", acting.done, name="ops-done"),
    path("ops/done/<str:entry_id>/live", acting.done_live, name="ops-done-live"),
    path("ops/letters", acting.letters, name="ops-letters"),
    path("ops/letters/<str:letter_id>", acting.letter, name="ops-letter"),
    path("ops/relay-letters", acting.of_relay, name="ops-relay-letters"),
    path("ops/relay-letters/<str:letter_id>", acting.relay_letter, name="ops-relay-letter"),
    path("ops/lanes", acting.lanes, name="ops-lanes"),
    path("ops/break-glass", views.break_glass, name="ops-break-glass"),
]
