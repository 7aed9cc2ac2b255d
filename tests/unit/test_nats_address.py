"""The URL of a fan-out over NATS, and the subjects under it."""

from __future__ import annotations

import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import FakeClock, FakeSink
from hubbub.fanout import open_fanout
from hubbub.fanout.nats import parse_address
from hubbub.fanout.nats.subjects import GROUPS, Subjects


def test_servers_login_and_parameters_are_read():
    """Escapes are undone, and ports may be left out."""
    address = parse_address("nats://chat:p%40s%2Fs@one,two:4333,[::1]:5000?prefix=a.b&single=7&lease_s=9.5")
    assert address.servers == ("one:4222", "two:4333", "[::1]:5000")
    assert (address.user, address.password, address.token) == ("chat", "p@s/s", None)
    assert (address.prefix, address.single, address.lease_s, address.is_tls) == ("a.b", 7, 9.5, False)
    assert parse_address("nats://secret@one").token == "secret"
    assert parse_address("tls://one").is_tls


def test_nothing_of_a_login_is_shown():
    """Neither by repr nor in an error."""
    assert "hunter2" not in repr(parse_address("nats://chat:hunter2@one"))
    for url in ("nats://chat:hunter2@one:99999999", "nats://chat:hunter2@", "nats://chat:hunter2@one?x=1"):
        with pytest.raises(ValueError, match="fanout") as raised:
            parse_address(url)
        assert "hunter2" not in str(raised.value)


def test_tls_files_mean_tls(tmp_path):
    """Also with nats://, so that nobody believes it is encrypted and it is not."""
    (tmp_path / "ca.pem").write_text("no certificate")
    address = parse_address(f"nats://one?tls_ca={tmp_path / 'ca.pem'}")
    assert address.is_tls
    with pytest.raises(ValueError, match="cannot use the TLS files"):
        address.tls_context()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nats://", "expected nats://host:port"),
        ("nats://one,,two", "as host or host:port, got ''"),
        ("nats://one:port", "as host or host:port, got 'one:port'"),
        ("nats://one/path", "nothing between the NATS servers and the parameters"),
        ("nats://one?colour=red", "there is no parameter 'colour'; expected one of creds"),
        ("nats://one?prefix=a&prefix=b", "prefix is there twice"),
        ("nats://one?prefix=a.*", "prefix: expected words"),
        ("nats://one?single=many", "single: expected a whole number from 0 to 1000000, got 'many'"),
        ("nats://one?heads_s=0", "heads_s: expected a number from 1 to 600, got '0'"),
        ("nats://one?heads_s=nan", "heads_s: expected a number from 1 to 600, got 'nan'"),
        ("nats://one?tls_ca=/nowhere", "tls_ca: expected a file, got '/nowhere'"),
        ("nats://one?lease_s=1&heartbeat_s=1", "lease_s of at least twice heartbeat_s"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_was_expected(url, words):
    """Before anything is connected."""
    with pytest.raises(ValueError, match="fanout") as raised:
        open_fanout(url, sink=FakeSink(), read=None, heads=lambda rooms: None, clock=FakeClock())
    assert words in str(raised.value)


def test_there_is_no_cluster_without_a_look_at_heads():
    """Whoever composes the node is told."""
    with pytest.raises(ValueError, match="heads"):
        open_fanout("nats://one", sink=FakeSink(), read=None, clock=FakeClock())


ROOM_IDS = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=64)


@given(
    st.lists(ROOM_IDS, min_size=2, max_size=2, unique=True), st.lists(st.text(max_size=128), unique=True, min_size=2)
)
def test_every_room_and_user_has_a_subject_of_its_own(rooms, users):
    """Of four tokens, without wildcards and blanks, whatever the ids are; the group's wildcard covers it."""
    subjects = Subjects("hubbub")
    made = [*map(subjects.room, rooms), *map(subjects.user, users)]
    assert len(set(made)) == len(made)
    for subject in made:
        tokens = subject.split(".")
        assert len(tokens) == 4 and 0 <= int(tokens[2]) < GROUPS and tokens[3]
        assert not set(tokens[3]) & set("*> \t\r\n") and subject.isascii() and len(subject) < 100
        assert subjects.whole_group(subject) == ".".join([*tokens[:3], "*"])


@pytest.mark.parametrize("password", ["hun/ter2", "hun?ter2", "hun?single=ter2", "hun#ter2", "hun[ter2]", "hun[ter2"])
@pytest.mark.parametrize("user", ["me:", ""])
def test_what_is_said_of_a_url_has_nothing_of_its_password(user, password):
    """Also where a character in it makes an end of what it is in; a token's neither."""
    with pytest.raises(ValueError, match="fanout: ") as refused:
        parse_address(f"nats://{user}{password}@127.0.0.1:4222")
    assert "hun" not in str(refused.value) and "ter2" not in str(refused.value)


async def test_files_of_nkeys_need_a_package(tmp_path, monkeypatch):
    """The error says which, before anything is connected."""
    seed = tmp_path / "seed.nk"
    seed.write_text("SU")
    monkeypatch.setattr("hubbub.fanout.nats.link.find_spec", lambda name: None)
    url = f"nats://127.0.0.1:1?nkey={seed}"
    with pytest.raises(ValueError, match="pip install nkeys"):
        async with open_fanout(url, sink=FakeSink(), read=None, heads=lambda rooms: None, clock=FakeClock()):
            pass


@pytest.mark.slow
def test_without_nats_py_the_extra_is_named(monkeypatch):
    """Whoever reads it knows what to install."""
    for name in list(sys.modules):
        if name == "nats" or name.startswith(("nats.", "hubbub.fanout.nats")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(ValueError, match=r"pip install 'hubbub\[nats\]'"):
        open_fanout("nats://one", sink=FakeSink(), read=None, heads=lambda rooms: None, clock=FakeClock())
