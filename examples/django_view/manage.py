"""A Django project whose view is the function behind WebSockets: a chat of its logged-in users.

The view is in chat/views.py. Make a secret for the calls of the gateway and a key for ours, and start both with them:

    export HUBBUB_HANDLER_SECRET=whsec_$(openssl rand -base64 32)
    export AWS_ACCESS_KEY_ID=chat AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 20)
    export HUBBUB_MANAGEMENT_KEYS=$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY
    cd examples/django_view
    python manage.py migrate --run-syncdb
    python manage.py createsuperuser
    python manage.py runserver 8001 &
    hubbub serve --handler http://127.0.0.1:8001/events --handler-routes join,say \\
        --allowed-origins http://127.0.0.1:8001

Then open http://127.0.0.1:8001 in two browsers. It needs django, standardwebhooks and hubbub.
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
    execute_from_command_line(sys.argv)
