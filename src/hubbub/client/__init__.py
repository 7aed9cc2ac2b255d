"""The Python client: `connect` gives a `Client` that sees every entry once and in order, across reconnects.

`session` decides without I/O, with `logs` for the rooms and `actions` and `frames` for words; `streams` buffers for the
application's loops; `client` has the socket and the timers.
"""

from __future__ import annotations

from hubbub.client.client import Client, connect
from hubbub.client.failures import Disconnected, TimedOut
from hubbub.client.frames import OtherEntry, OtherSignal, Reset

__all__ = ["Client", "Disconnected", "OtherEntry", "OtherSignal", "Reset", "TimedOut", "connect"]
