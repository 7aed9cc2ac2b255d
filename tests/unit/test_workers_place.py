"""What a worker and its parent tell each other by their pipes."""

from __future__ import annotations

import os

from hubbub.workers.place import Place


def test_a_worker_that_is_ready_is_heard():
    """Its parent reads a byte, and then the end of the pipe."""
    awaited, ready = os.pipe()
    Place(number=0, public=[], admin=[], lifeline=0, ready=ready).tell_ready()
    assert os.read(awaited, 8) == b"+"
    assert os.read(awaited, 8) == b""
    os.close(awaited)


def test_a_parent_that_listens_no_more_is_no_failure():
    """It is about to end while a worker starts, who lives on until he is asked to end, and ends in good order."""
    awaited, ready = os.pipe()
    os.close(awaited)
    Place(number=0, public=[], admin=[], lifeline=0, ready=ready).tell_ready()
