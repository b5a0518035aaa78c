from django.contrib.admin.apps import AdminConfig


class ThrottledAdminConfig(AdminConfig):
    """Django's admin, with our site."""

    default_site = "eventsite.web.admin.site.Site"
