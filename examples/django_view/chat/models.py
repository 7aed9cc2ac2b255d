"""Who is connected."""

from django.conf import settings
from django.db import models


class Connection(models.Model):
    """A live connection and whose it is: the events of messages have no cookies."""

    id = models.CharField(primary_key=True, max_length=64)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
