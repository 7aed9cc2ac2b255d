"""Moto's server on a socket that is already listening: what `hubbub.emulator.resources.backends` starts as a child.

A script of its own, run as `python -P moto_process.py FD`, where FD is the number of the listening socket. So the port
is known before anything is imported here, and who calls early waits in the socket's queue instead of failing.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


class _Quiet(MotoRequestHandler):
    """Says nothing of requests that are answered; what fails is still written."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Of no interest."""


class _OneAtATime:
    """Lets one call of a table at a time into moto, which has threads and no locks: two updates at once lose one.

    Others may be as many as come: some wait, as for messages of a queue.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # Any: WSGI's
        """Answer a call."""
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            return self._application(environ, start_response)
        with self._turn:
            return self._application(environ, start_response)


class _Saved:
    """What a transaction's items are before it, so that it can be undone.

    Moto copies the whole table instead, once for each action: seconds a transaction where there are thousands of items.
    It is kept from that while it is at a transaction, of which there is one at a time (`_OneAtATime`).
    """

    def __init__(self, backend: DynamoDBBackend, actions: list[dict[str, Any]]) -> None:  # Any: DynamoDB's JSON
        self._items: list[tuple[Table, Any, Any, Any]] = []  # table, keys and a copy of the item: moto has no types
        self._records: list[tuple[Any, int]] = []  # streams, and how long they are
        for action in (next(iter(action.values())) for action in actions):
            table = backend.tables.get(action.get("TableName", ""))
            keys = action.get("Key") or action.get("Item") or {}
            if table is None or not keys.keys() >= set(table.table_key_attrs):  # moto says what is wrong with it
                continue
            hash_key, range_key = backend.get_keys_value(table, keys)
            self._items.append((table, hash_key, range_key, copy.deepcopy(table.get_item(hash_key, range_key))))
            if table.stream_shard is not None:
                self._records.append((table.stream_shard, len(table.stream_shard.items)))

    def restore(self) -> None:
        """Undo what was done since."""
        for table, hash_key, range_key, item in self._items:
            table.delete_item(hash_key, range_key)
            if item is None:
                continue
            if range_key is None:
                table.items[hash_key] = item
            else:
                table.items[hash_key][range_key] = item
        for stream, length in self._records:
            del stream.items[length:]


def _spare_copies() -> None:
    """Let a transaction cost what its items cost, however many others there are."""
    transact, copied = DynamoDBBackend.transact_write_items, [True]

    def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        saved = _Saved(self, transact_items)
        copied[0] = False
        try:
            transact(self, transact_items)
        except BaseException:
            saved.restore()
            raise
        finally:
            copied[0] = True

    def deep_copy(self: Any, memo: dict[int, Any]) -> Any:  # Any: moto's tables do not say that they are made so
        if not copied[0]:
            return self
        made = memo[id(self)] = Table.__new__(Table)
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    setattr(DynamoDBBackend, "transact_write_items", transact_write_items)  # noqa: B010  mypy knows no such assignment
    setattr(Table, "__deepcopy__", deep_copy)  # noqa: B010  neither this one


def serve(descriptor: int) -> None:
    """Answer on the listening socket until a signal ends the process; there is nothing to keep."""
    _spare_copies()
    application = _OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet, fd=descriptor)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
