"""Moto's server on a socket that is already listening: what `hubbub.emulator.resources.backends` starts as a child.

A script of its own, run as `python -P moto_process.py FD`, where FD is the number of the listening socket. So the port
is known before anything is imported here, and who calls early waits in the socket's queue instead of failing.
"""

from __future__ import annotations

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class _Quiet(MotoRequestHandler):
    """Says nothing of requests that are answered; what fails is still written."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Of no interest."""


def serve(descriptor: int) -> None:
    """Answer on the listening socket until a signal ends the process; there is nothing to keep."""
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet, fd=descriptor)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
