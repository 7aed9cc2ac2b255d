"""Settings of the project: `CHAT_LAYER` names the class of the channel layer, `REDIS_PORT` says where Redis is."""

from __future__ import annotations

import os

SECRET_KEY = "known to everybody, for benches alone"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
ROOT_URLCONF = "channels_chat.urls"
ASGI_APPLICATION = "channels_chat.asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": os.environ["CHAT_LAYER"],
        "CONFIG": {"hosts": [("127.0.0.1", int(os.environ["REDIS_PORT"]))]},
    }
}
