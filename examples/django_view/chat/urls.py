"""The page, its login, and the gateway's view."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.generic import TemplateView

from chat.views import events

urlpatterns = [
    path("", TemplateView.as_view(template_name="chat.html")),
    path("login", LoginView.as_view(template_name="chat.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("events", events),
]
