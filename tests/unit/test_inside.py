"""What a sampling profiler's stacks say."""

from __future__ import annotations

import sys

import pytest
from bench.inside import profiler, read_stacks

OUTERMOST = "<module> (hubbub/__main__.py:5);main (hubbub/cli.py:90);run (loop.c:1)"

FLUSH = f"{OUTERMOST};Hub._flush (hubbub/gateway/hub.py:401)"

RAW = f"""\
{FLUSH};flush (hubbub/gateway/outlets.py:9);try_write (loop.c:11);__write (libc.so.6) 60
{FLUSH};flush (hubbub/gateway/outlets.py:12) 10
{OUTERMOST};Chat.handle (hubbub/chat/core.py:312);mpack (libmsgspec.cpython-311.so) 6
{OUTERMOST};Chat.handle (hubbub/chat/core.py:318);list_sort (listobject.c:40) 4
Writer._run (hubbub/store/sqlite/writer.py:80);sqlite3_step (libsqlite3.so.0);fdatasync (libc.so.6) 20
Writer._run (hubbub/store/sqlite/writer.py:60);PyThread_acquire_lock_timed (libpython3.11.so.1.0);0x7f03 (libc.so.6) 500
run (threading.py:982);_outlive (hubbub/workers/place.py:60);os_read (posixmodule.c:9);read (libc.so.6) 300
"""


def test_a_sample_counts_for_the_place_in_which_its_time_was_spent() -> None:
    """System calls, C libraries, modules, and C that a module calls are told apart."""
    found = read_stacks(RAW)

    assert found.places == {
        "kernel: write": 60,
        "hubbub.gateway.outlets": 10,
        "libmsgspec": 6,
        "hubbub.chat.core, in C": 4,
        "kernel: fsync": 20,
    }


def test_who_waits_for_another_thread_is_not_counted() -> None:
    """A sample of a thread that waits is none of processor time."""
    assert read_stacks(RAW).samples == 100


def test_a_function_has_what_it_calls() -> None:
    """Each function of Hubbub's on a stack counts once, with all below it; others are left out."""
    found = read_stacks(RAW)

    assert found.functions["hubbub.gateway.hub.Hub._flush"] == 70
    assert found.functions["hubbub.cli.main"] == 80
    assert found.functions["hubbub.store.sqlite.writer.Writer._run"] == 20
    assert not any("sqlite3_step" in name for name in found.functions)


def test_a_missing_profiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where py-spy is not installed, the message says how to install it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(FileNotFoundError, match="pip install py-spy"):
        profiler()
