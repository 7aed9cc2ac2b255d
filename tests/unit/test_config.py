"""Settings: where they come from, what they may be, and what is said when they are wrong."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from documents import ROOT
from hubbub.config import (
    SETTINGS,
    Settings,
    SettingsError,
    default_of,
    dev_secret,
    is_list,
    kind_of,
    load,
    masked,
    placeholder_of,
    read_keys,
    read_management_keys,
)

CLUSTER = {"store": "postgresql://db/chat", "fanout": "nats://n1"}
SECRET = "a-secret-for-tests-only-0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that no file of somebody's counts."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(
    flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags or {}, environ or {}, file)
    return str(refused.value)


# Where they come from


@pytest.mark.parametrize(
    ("name", "in_file", "in_environ", "as_flag", "values"),
    [
        ("port", "7001", "7002", "7003", (8000, 7001, 7002, 7003)),
        ("leeway_s", "1", "2.5", "3", (10.0, 1.0, 2.5, 3.0)),
        ("host", '"10.0.0.1"', "10.0.0.2", "10.0.0.3", ("127.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3")),
        ("store", '"sqlite:///a"', "sqlite:///b", "sqlite:///c", (None, "sqlite:///a", "sqlite:///b", "sqlite:///c")),
        ("dev", "true", "false", True, (False, True, False, True)),
        ("dev", "false", "yes", False, (False, False, True, False)),
        ("algorithms", '["RS256"]', "ES256,HS256", ["EdDSA"], (None, ["RS256"], ["ES256", "HS256"], ["EdDSA"])),
        ("log_level", '"debug"', "ERROR", "Warning", ("info", "debug", "error", "warning")),
        ("retain_entries", "5", "6", "7", (None, 5, 6, 7)),
    ],
)
def test_a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default(
    folder: Path, name: str, in_file: str, in_environ: str, as_flag: Any, values: tuple[Any, ...]
):
    """For each kind of value the nearer source counts."""
    environ = {f"HUBBUB_{name.upper()}": in_environ}
    assert getattr(load({}, {}), name) == values[0] == default_of(name)
    (folder / "hubbub.toml").write_text(f"{name} = {in_file}")
    assert getattr(load({}, {}), name) == values[1]
    assert getattr(load({name: None}, environ), name) == values[2]
    assert getattr(load({name: as_flag}, environ), name) == values[3]


def test_what_no_source_sets_keeps_its_default():
    """Settings without any source are those of the class."""
    assert load({}, {}) == Settings()
    assert load(dict.fromkeys(SETTINGS), {"PATH": "x", "HUBBUBB_PORT": "x"}) == Settings()


def test_a_file_that_is_named_is_read_instead_of_the_one_in_the_folder(folder: Path):
    """`--config` replaces hubbub.toml."""
    (folder / "hubbub.toml").write_text("port = 7001")
    (folder / "other.toml").write_text("crowd = 7")
    settings = load({}, {}, folder / "other.toml")
    assert (settings.port, settings.crowd) == (8000, 7)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("a.pem", ["a.pem"]), (" a.pem , b.pem,", ["a.pem", "b.pem"]), (["a.pem,b.pem", "c.pem"], list("abc"))],
)
def test_a_list_has_commas_between_or_is_a_repeated_flag(given: Any, meant: list[str]):
    """Both ways may be mixed, and space around the commas is nothing."""
    meant = [name if name.endswith(".pem") else f"{name}.pem" for name in meant]
    assert load({"public_keys": given}, {}).public_keys == meant
    if isinstance(given, str):
        assert load({}, {"HUBBUB_PUBLIC_KEYS": given}).public_keys == meant


def test_a_flag_that_was_not_given_hides_nothing():
    """An empty list of a flag leaves the environment's value."""
    assert load({"algorithms": []}, {"HUBBUB_ALGORITHMS": "ES256"}).algorithms == ["ES256"]


@pytest.mark.parametrize("text", ["1", "true", "True", "YES", "on", " on "])
def test_truth_is_written_in_several_ways(text: str):
    """The environment's usual words for yes count as it."""
    assert load({}, {"HUBBUB_DEV": text}).dev is True


@pytest.mark.parametrize("text", ["0", "false", "FALSE", "no", "Off"])
def test_untruth_too(text: str):
    """And those for no."""
    assert load({"dev": None}, {"HUBBUB_DEV": text}).dev is False


def test_an_empty_variable_is_none_where_that_is_possible():
    """Compose files leave variables empty; that unsets an optional setting, also one from the file."""
    Path("hubbub.toml").write_text('audience = "chat"\nretain_entries = 5')
    settings = load({}, {"HUBBUB_AUDIENCE": "", "HUBBUB_RETAIN_ENTRIES": "", "HUBBUB_SECRET": ""})
    assert (settings.audience, settings.retain_entries, settings.secret) == (None, None, None)


def test_space_around_a_value_is_nothing_except_in_a_secret():
    """A line of an .env file may end in a space or CR; a secret's bytes are its own."""
    settings = load({}, {"HUBBUB_PORT": "7001\r", "HUBBUB_HOST": " ::1 ", "HUBBUB_SECRET": " s "})
    assert (settings.port, settings.host, settings.secret) == (7001, "::1", " s ")


def test_variables_of_clients_are_no_settings():
    """A shell that has a token for a client can start a server too."""
    assert (
        load(
            {},
            {
                "HUBBUB_TOKEN": "x",
                "HUBBUB_CALLBACK_URL": "x",
                "HUBBUB_URL_Api": "x",
                "HUBBUB_URL": "ws://127.0.0.1:8000/ws",
            },
        )
        == Settings()
    )


def test_what_counts_before_there_are_settings_is_none():
    """A server starts with and without the gateway's accelerator."""
    assert load({}, {"HUBBUB_ACCELERATOR": "0"}) == load({}, {"HUBBUB_ACCELERATOR": "1"}) == Settings()


# What is wrong is named


def test_an_unknown_setting_is_named_with_its_source_and_a_hint(folder: Path):
    """Each source spells the hint its own way, and there is none if nothing is near."""
    assert refusal({}, {"HUBBUB_PROT": "1"}) == (
        "prot: there is no such setting, in the variable HUBBUB_PROT; did you mean HUBBUB_PORT?"
    )
    assert refusal({"ping_after": 1}) == (
        "ping_after: there is no such setting, in the flag --ping-after; did you mean --ping-after-s?"
    )
    (folder / "hubbub.toml").write_text("alowed_origins = []")
    assert refusal() == (
        "alowed_origins: there is no such setting, in the file hubbub.toml; did you mean allowed_origins?"
    )
    assert refusal({}, {"HUBBUB_XYZZY": "1"}, None).startswith("alowed_origins")
    (folder / "hubbub.toml").write_text("[website]\nport = 1")
    assert refusal() == "website: there is no such setting, in the file hubbub.toml"
    (folder / "hubbub.toml").unlink()
    assert refusal({}, {"HUBBUB_XYZZY": "1"}) == "xyzzy: there is no such setting, in the variable HUBBUB_XYZZY"


IMPOSSIBLE = [
    ("port", "abc", "a whole number from 0 to 65535"),
    ("port", "65536", "a whole number from 0 to 65535"),
    ("port", "-1", "a whole number from 0 to 65535"),
    ("port", "80.5", "a whole number from 0 to 65535"),
    ("port", "", "a whole number from 0 to 65535"),
    ("port", "tcp://10.0.0.1:8000", "a whole number from 0 to 65535"),
    ("host", "", "text"),
    ("host", "a\0b", "text"),
    ("dev", "maybe", "true or false"),
    ("dev", "", "true or false"),
    ("leeway_s", "301", "a number from 0 to 300"),
    ("leeway_s", "nan", "a number from 0 to 300"),
    ("idle_s", "0", "a number above 0"),
    ("idle_s", "inf", "a number above 0"),
    ("idle_s", "-inf", "a number above 0"),
    ("rate", "-1", "a number from 0"),
    ("rate", "1e400", "a number from 0"),
    ("burst", "0", "a whole number from 1"),
    ("retain_entries", "99999999999999999999", "a whole number from 1"),
    ("retain_days", "1e9", "a number above 0 up to 36500"),
    ("max_message_bytes", "1023", "a whole number from 1024 to 16777216"),
    ("log_level", "loud", "one of debug, info, warning, error"),
    ("log_format", "", "one of auto, text, json"),
]


@pytest.mark.parametrize(("name", "value", "expected"), IMPOSSIBLE)
def test_an_impossible_value_is_named_with_what_was_expected(name: str, value: str, expected: str):
    """The message has the setting, what it may be, what came, and where from."""
    got = f"{name}: expected {expected}, got {value!r}"
    assert refusal({}, {f"HUBBUB_{name.upper()}": value}) == f"{got}, in the variable HUBBUB_{name.upper()}"
    assert refusal({name: value}) == f"{got}, in the flag --{name.replace('_', '-')}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('port = "8000"', "port: expected a whole number from 0 to 65535, got '8000'"),
        ("port = 8000.0", "port: expected a whole number from 0 to 65535, got 8000.0"),
        ("port = true", "port: expected a whole number from 0 to 65535, got True"),
        ('dev = "true"', "dev: expected true or false, got 'true'"),
        ("dev = 1", "dev: expected true or false, got 1"),
        ("idle_s = inf", "idle_s: expected a number above 0, got inf"),
        ("rate = nan", "rate: expected a number from 0, got nan"),
        ("algorithms = [1]", "algorithms: expected a list of texts, got [1]"),
        ("algorithms = {a = 1}", "algorithms: expected a list of texts, got {'a': 1}"),
        ('public_keys = ["a\\u0000b"]', "public_keys: expected a list of texts, got ['a\\x00b']"),
        ('issuer = ""', "issuer: expected text, got ''"),
        ("host = 2024-01-01", "host: expected text, got datetime.date(2024, 1, 1)"),
        ("[port]", "port: expected a whole number from 0 to 65535, got {}"),
    ],
)
def test_a_file_has_types(folder: Path, line: str, expected: str):
    """In TOML a number is a number and no text."""
    (folder / "hubbub.toml").write_text(line)
    assert refusal() == f"{expected}, in the file hubbub.toml"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"port 8000", "hubbub.toml is not TOML: "),
        (b"port = 1\nport = 2", "hubbub.toml is not TOML: "),
        (b'host = "\xff"', "cannot read hubbub.toml: it is not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(folder: Path, content: bytes, words: str):
    """The message says why."""
    (folder / "hubbub.toml").write_bytes(content)
    assert words in refusal()


def test_a_file_that_cannot_be_read_is_named(folder: Path):
    """One that was asked for must be there; one that happens to be there must be readable."""
    assert refusal(file=Path("none.toml")) == "config: there is no file none.toml"
    (folder / "hubbub.toml").mkdir()
    assert refusal() == "config: cannot read hubbub.toml: Is a directory"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"secret": "x", "secret_file": "y"}, "secret_file: expected either secret or secret_file, got both"),
        ({"path": "ws"}, "path: expected a path that begins with /"),
        ({"path": "/ws?x"}, "path: expected a path that begins with /"),
        ({"path": "/w s"}, "path: expected a path that begins with /"),
        ({"fanout": "redis://x"}, "fanout: expected local, nats://HOST,HOST or tls://HOST,HOST, got 'redis://x'"),
        ({"fanout": "nats://"}, "fanout: expected local, nats://HOST"),
        ({"store": "mysql://x"}, "dynamodb://TABLE or postgresql://HOST/DATABASE, got 'mysql://x'"),
        ({"fanout": "nats://x"}, "store: expected one that nodes share beside a fan-out that nodes share, such as p"),
        ({"fanout": "tls://x", "store": "sqlite:///x.db"}, "got sqlite:///x.db"),
        ({"workers": 2}, "workers: expected 1 with this store and fan-out: one process holds an SQLite file"),
        ({"workers": 2, "store": "postgresql://x/y"}, "HUBBUB_FANOUT   nats://HOST"),
        ({"workers": 2, "handler": "http://x"}, "workers: expected 1 beside handler, got 2"),
        ({"workers": 0}, "workers: expected a whole number from 1 to 256"),
        ({**CLUSTER, "workers": 2, "admin_port": 0}, "admin_port: expected 2 ports from it on, one for each worker"),
        ({**CLUSTER, "workers": 2, "admin_port": 65_535}, "without the port 8000; got 65535"),
        ({**CLUSTER, "workers": 2, "admin_port": 7_999}, "without the port 8000; got 7999"),
        ({"store": "sqlite://hubbub.db"}, "store: expected sqlite:///PATH"),
        ({"store": "sqlite:///"}, "store: expected sqlite:///PATH"),
        ({"admin_host": "127.0.0.1"}, "admin_port: expected a port beside admin_host, got none"),
        ({"handler": "http://x", "app": "myapp:chat"}, "handler: expected either a handler or an app, got both"),
        ({"handler_secret": "whsec_x"}, "handler: expected the address of an endpoint beside handler_secret, got none"),
        ({"handler_routes": "say"}, "handler: expected the address of an endpoint beside handler_routes, got none"),
        (
            {"handler": "http://x", "handler_routes": "say,$connect"},
            "handler_routes: expected keys of your own, got $c",
        ),
        ({"management_keys": "chat"}, "management_keys: expected an access key, a colon and its secret"),
        ({"management_keys": "chat:"}, "management_keys: expected an access key, a colon and its secret"),
        ({"management_keys": ":secret"}, "management_keys: expected an access key, a colon and its secret"),
        ({"management_keys": "a/b:secret"}, "management_keys: expected an access key, a colon and its secret"),
        ({"admin_port": 8000}, "admin_port: expected another port than port, got 8000 for both"),
        ({"allowed_origins": "app.example.com"}, "allowed_origins: expected origins as browsers send them"),
        ({"allowed_origins": "https://app.example.com/"}, "got 'https://app.example.com/'"),
        ({"allowed_origins": "https://App.example.com"}, "got 'https://App.example.com'"),
        ({"allowed_origins": "https://a.example,b.example"}, "got 'b.example'"),
        ({"allowed_origins": "*.example.com"}, "got '*.example.com'"),
        ({"forwarded_allow_ips": "proxy"}, "forwarded_allow_ips: expected addresses or networks such as 10.0.0.0/8"),
        ({"forwarded_allow_ips": "10.0.0.1,300.0.0.1"}, "got '300.0.0.1'"),
    ],
)
def test_what_is_impossible_although_of_the_right_kind_is_named(flags: dict[str, Any], words: str):
    """Also settings that only contradict each other."""
    assert words in refusal(flags)


def test_workers_need_a_store_and_a_fan_out_that_nodes_share():
    """With these there may be several, with admin ports or without."""
    for more in ({}, {"admin_port": 8001}, {"admin_port": 7_998}, {"store": "dynamodb://table"}):
        assert load({**CLUSTER, "workers": 2, **more}, {}).workers == 2


def test_what_looks_odd_and_is_possible_is_accepted():
    """Origins of apps, networks in both notations, two free ports."""
    settings = load(
        {
            "allowed_origins": "*,null,http://localhost:3000,https://[::1]:8443,capacitor://localhost",
            "forwarded_allow_ips": "10.0.0.0/8, 10.1.2.3/8, ::1, *",
            "admin_port": 0,
            "port": 0,
            "path": "/",
            "store": "sqlite://:memory:",
        },
        {},
    )
    assert len(settings.allowed_origins or []) == 5


def test_a_secret_is_never_shown(folder: Path):
    """Neither in messages, whatever is wrong with it, nor when settings or keys are printed."""
    (folder / "hubbub.toml").write_text("secret = 4815162342")
    assert "4815162342" not in refusal()
    (folder / "hubbub.toml").write_text(f'secret = "{SECRET}\nport = 1')
    assert SECRET not in refusal()
    (folder / "hubbub.toml").unlink()
    for flags in ({"secret": SECRET, "secret_file": "x"}, {"secret": f"{SECRET}\0"}, {"secret": SECRET, "port": "x"}):
        assert SECRET not in refusal(flags)
    settings = load({"secret": SECRET, "port": 7001}, {})
    assert repr(settings) == str(settings) == "Settings(port=7001, secret=…)"
    for name in ("handler_secret", "management_keys"):
        for flags in ({name: f"{SECRET}\0"}, {name: SECRET}, {name: f"a b:{SECRET}"}):
            assert SECRET not in refusal(flags)
    handler = load({"handler": "http://x", "handler_secret": SECRET, "management_keys": f"k:{SECRET}"}, {})
    assert repr(handler) == "Settings(handler='http://x', handler_secret=…, management_keys=…)"
    assert SECRET not in repr(read_keys(settings))
    (folder / "secret.txt").write_bytes(SECRET.encode() + b"\xff")
    with pytest.raises(SettingsError) as refused:
        read_keys(Settings(secret_file="secret.txt"))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://chat:4815162342@db1,db2/chat?ssl=require", "postgresql://chat:…@db1,db2/chat?ssl=require"),
        ("postgresql://chat:48/15@16:2342@db/chat", "postgresql://chat:…@db/chat"),
        ("postgresql://db/chat?user=chat&password=4815162342&x=1", "postgresql://db/chat?user=chat&password=…&x=1"),
        ("postgresql://chat@db/chat", "postgresql://chat@db/chat"),
        ("nats://chat:4815162342@n1,n2:4222", "nats://chat:…@n1,n2:4222"),
        ("nats://chat:4815162342@n1,nats://chat:2342@n2", "nats://chat:…@n2"),
        ("tls://4815162342@n1", "tls://…@n1"),
        ("nats://n1,n2", "nats://n1,n2"),
        ("sqlite:////var/lib/a@b:c.db", "sqlite:////var/lib/a@b:c.db"),
    ],
)
def test_a_password_in_a_url_is_never_shown(url: str, shown: str):
    """Nor a token; neither in messages nor when settings are printed. Everything else is."""
    assert masked(url) == shown
    is_fanout = url.startswith(("nats:", "tls:"))
    given = {**CLUSTER, "fanout" if is_fanout else "store": url}
    if url.startswith("sqlite:"):
        del given["fanout"]
    assert repr(shown) in repr(load(given, {}))
    assert "2342" not in repr(load(given, {}))
    assert "2342" not in refusal({"fanout" if is_fanout else "store": f"x{url}"})
    assert "2342" not in refusal({"fanout" if is_fanout else "store": f"{url}\0"})


# Keys


def test_without_any_key_it_is_said_what_to_set():
    """The message names every way, and the one to try things out."""
    with pytest.raises(SettingsError) as refused:
        read_keys(Settings())
    for word in ("HUBBUB_SECRET", "HUBBUB_PUBLIC_KEYS", "HUBBUB_JWKS_URL", "hubbub serve --dev"):
        assert word in str(refused.value)


def test_keys_are_read_from_where_the_settings_say(folder: Path):
    """The secret as it is, files without the space around; a JWKS address alone is enough."""
    (folder / "key.pem").write_text("\npem\n")
    keys = read_keys(Settings(secret=SECRET, public_keys=["key.pem", "key.pem"]))
    assert (keys.secrets, keys.public_keys) == ([SECRET], ["pem", "pem"])
    keys = read_keys(Settings(jwks_url="https://id.example/jwks"))
    assert (keys.secrets, keys.public_keys) == ([], [])


def test_management_keys_are_pairs():
    """What is before the first colon is the access key; without any there are none."""
    settings = load({}, {"HUBBUB_MANAGEMENT_KEYS": "chat:a/secret+of=AWS, other:with:colons"})
    assert read_management_keys(settings) == {"chat": "a/secret+of=AWS", "other": "with:colons"}
    assert read_management_keys(Settings()) == {}


def test_a_secret_file_may_have_older_secrets_below(folder: Path):
    """The first line signs, all lines verify: so a secret is replaced without anybody noticing."""
    (folder / "secret").write_text("new-secret\r\n\n  old-secret\n")
    assert read_keys(Settings(secret_file="secret")).secrets == ["new-secret", "old-secret"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"secret_file": "none"}, "secret_file: cannot read none: No such file or directory"),
        ({"secret_file": "."}, "secret_file: cannot read .: Is a directory"),
        ({"secret_file": "empty"}, "secret_file: expected a secret in empty, got an empty file"),
        ({"public_keys": ["none.pem"]}, "public_keys: cannot read none.pem: No such file or directory"),
        ({"public_keys": ["binary"]}, "public_keys: cannot read binary: it is not text in UTF-8"),
    ],
)
def test_a_key_that_cannot_be_read_is_named(folder: Path, settings: dict[str, Any], words: str):
    """With its setting and its file."""
    (folder / "empty").write_text(" \n")
    (folder / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError) as refused:
        read_keys(Settings(**settings))
    assert str(refused.value) == words


def test_the_development_secret_is_made_once_and_kept(folder: Path):
    """In the data folder, readable by its owner only, whatever the umask."""
    before = os.umask(0)
    try:
        first = read_keys(Settings(dev=True, data="a/b")).secrets
    finally:
        os.umask(before)
    assert read_keys(Settings(dev=True, data="a/b")).secrets == first
    assert len(first[0]) >= 32
    assert stat.S_IMODE((folder / "a/b/dev-secret").stat().st_mode) == 0o600
    assert [file.name for file in Path("a/b").iterdir()] == ["dev-secret"]
    assert read_keys(Settings(dev=True, data="c")).secrets != first


def test_the_development_secret_stands_back_for_real_keys():
    """With `--dev` and a secret of one's own, nothing is made, and nobody else's token counts."""
    assert read_keys(Settings(dev=True, secret=SECRET)).secrets == [SECRET]
    assert read_keys(Settings(dev=True, jwks_url="https://id.example/jwks")).secrets == []
    assert not Path("hubbub-data").exists()


def test_looking_for_the_development_secret_makes_nothing():
    """Without `create` there is one or there is none."""
    assert dev_secret(Path("data"), create=False) is None
    with pytest.raises(SettingsError, match="nothing to verify tokens with"):
        read_keys(Settings(dev=True, data="data"), create=False)
    assert not Path("data").exists()


ROUNDS = 20


def _make(folder: str, start: Any, results: Any) -> None:
    for number in range(ROUNDS):
        start.wait(30)
        results.put((number, dev_secret(Path(folder) / str(number), create=True)))


@pytest.mark.slow
def test_processes_that_make_the_development_secret_at_once_agree_on_one(folder: Path):
    """In the same moment, in a folder that is not there yet: one secret, and nothing left over."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    makers = [context.Process(target=_make, args=(str(folder), start, results)) for _ in range(3)]
    for maker in makers:
        maker.start()
    made = {results.get(timeout=60) for _ in range(ROUNDS * len(makers))}
    for maker in makers:
        maker.join(30)
    assert made == {(number, (folder / f"{number}/dev-secret").read_text().strip()) for number in range(ROUNDS)}
    assert {file.name for file in folder.rglob("*") if file.is_file()} == {"dev-secret"}


def test_a_development_secret_that_cannot_be_kept_is_named(folder: Path):
    """A file in the folder's place, a folder in the file's place, and an empty file."""
    (folder / "file").write_text("")
    (folder / "odd/dev-secret").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "empty/dev-secret").write_text("\n")
    for data, words in (
        ("file", "data: cannot keep a development secret in file: "),
        ("odd", "data: cannot keep a development secret in odd: Is a directory"),
        ("empty", "data: the development secret empty/dev-secret is empty; remove the file"),
    ):
        with pytest.raises(SettingsError) as refused:
            dev_secret(Path(data), create=True)
        assert str(refused.value).startswith(words)


# The table


def test_the_table_is_about_all_settings_and_no_others():
    """In the order in which the settings are declared, each with a sentence."""
    assert list(SETTINGS) == [field.name for field in msgspec.structs.fields(Settings)]
    for about in SETTINGS.values():
        assert about.help.endswith(".")
        assert about.help[0].isupper()


def test_every_setting_says_what_its_value_is():
    """For messages in words, for the help in a placeholder without spaces."""
    for name in SETTINGS:
        assert re.match(r"(text|true or false|a list|a (whole )?number (from|above) \d|one of )", kind_of(name)), name
        assert re.fullmatch(r"[A-Za-z:|]+", placeholder_of(name)), name
        assert is_list(name) is (kind_of(name) == "a list of texts")


def test_the_defaults_are_possible():
    """Each default, written into the environment, is the default."""
    for name in SETTINGS:
        default = default_of(name)
        text = ",".join(default) if isinstance(default, list) else "" if default is None else str(default)
        assert getattr(load({}, {f"HUBBUB_{name.upper()}": text}), name) == default, name


def test_the_reference_has_every_setting():
    """docs/configuration.md has a row for each setting, with its kind of value and its help."""
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for name, about in SETTINGS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert kind_of(name) in row.replace("\\|", "|")
        assert about.help in row
    assert set(re.findall(r"HUBBUB_([A-Z_]+)", page)) - {"ACCELERATOR", "TOKEN", "URL"} <= {
        name.upper() for name in SETTINGS
    } | {"SERVICE_HOST"}
