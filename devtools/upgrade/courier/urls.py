from django.urls import path

from devtools.upgrade.courier import api

urlpatterns = [path("deliveries", api.DeliveriesView.as_view())]
