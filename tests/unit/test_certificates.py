"""The certificate that TLS is spoken with: what is taken, what is refused with which words, and renewals."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from hubbub.listening import certificates as module
from hubbub.listening.certificates import BadCertificate, Certificates, read_pair
from live import BOUND_S, until
from tlslab import Issuer, replace


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    made = Issuer(tmp_path)
    made.write("chat.example.com", "127.0.0.1")
    return made


def test_a_pair_says_what_it_is_for_and_until_when(issuer: Issuer) -> None:
    """Names and dates are the certificate's own."""
    pair = read_pair(issuer.cert, issuer.key)
    assert sorted(pair.names) == ["127.0.0.1", "chat.example.com"]
    assert 28 <= (pair.expires - pair.begins).days - 1 <= 31
    assert "chat.example.com" in repr(pair)


def test_key_and_certificate_may_be_in_one_file(issuer: Issuer) -> None:
    """So some tools write them, the key first or last."""
    cert, key = issuer.cert.read_bytes(), issuer.key.read_bytes()
    for both in (cert + key, key + cert):
        replace(issuer.cert, both)
        assert read_pair(issuer.cert).names


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        (None, b"", "tls_cert: cannot read .*chain.pem: No such file or directory"),
        (b"", b"", "tls_cert: expected certificates in PEM in .*chain.pem, got something else"),
        (b"\x30\x82\x00", b"", "tls_cert: expected certificates in PEM"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"",
            "tls_cert: expected certificates in PEM",
        ),
        (b"+", None, "tls_key: cannot read .*key.pem: No such file or directory"),
        (b"+", b"nothing", "tls_key: expected a private key in PEM in .*key.pem, got something else"),
    ],
)
def test_what_is_no_pair_is_refused_with_what_it_is(
    issuer: Issuer, cert: bytes | None, key: bytes | None, words: str
) -> None:
    """The setting, what was expected and the file are named."""
    for file, content in ((issuer.cert, cert), (issuer.key, key)):
        if content is None:
            file.unlink()
        elif content != b"+":
            replace(file, content)
    with pytest.raises(BadCertificate, match=words):
        read_pair(issuer.cert, issuer.key)


def test_a_key_of_another_certificate_is_refused(issuer: Issuer) -> None:
    """Which happens when half of a renewal has been copied."""
    old = issuer.key.read_bytes()
    issuer.write("chat.example.com")
    replace(issuer.key, old)
    with pytest.raises(
        BadCertificate, match=r"tls_key: expected the key of the certificate in .*chain.pem, got another"
    ):
        read_pair(issuer.cert, issuer.key)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(issuer: Issuer) -> None:
    """A server that starts by itself has nobody to ask."""
    key = load_pem_private_key(issuer.key.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    replace(issuer.key, locked)
    with pytest.raises(BadCertificate, match="tls_key: expected a key without a passphrase"):
        read_pair(issuer.cert, issuer.key)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x06"),  # the curve
        (b"\x06\x03\x55\x1d\x23", b"\x06\x03\x55\x1d\x11"),  # a second list of names
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"),  # the version
    ],
)
def test_a_certificate_of_an_unknown_kind_is_refused(issuer: Issuer, there: bytes, instead: bytes) -> None:
    """At the start, and as a renewal, which must not end the node."""
    certificates = Certificates(issuer.cert, issuer.key)
    der = ssl.PEM_cert_to_DER_cert(issuer.cert.read_text())
    assert there in der
    replace(issuer.cert, ssl.DER_cert_to_PEM_cert(der.replace(there, instead)).encode())
    with pytest.raises(BadCertificate, match="tls_cert: expected"):
        read_pair(issuer.cert, issuer.key)
    assert not certificates.renew()


def test_nobody_can_ask_for_further_handshakes(issuer: Issuer) -> None:
    """Which TLS 1.2 has, and OpenSSL 1.1 allows."""
    assert read_pair(issuer.cert, issuer.key).context.options & ssl.OP_NO_RENEGOTIATION


def test_a_renewed_pair_is_used(issuer: Issuer) -> None:
    """What comes after speaks with it."""
    certificates = Certificates(issuer.cert, issuer.key)
    before = certificates.context
    issuer.write("other.example.com")
    assert certificates.renew()
    assert certificates.context is not before
    assert certificates.pair.names == ["other.example.com"]


@pytest.mark.parametrize("trouble", ["gone", "garbage", "expired", "half"])
def test_a_bad_renewal_is_refused_and_the_old_one_used_on(
    issuer: Issuer, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is wrong with it."""
    certificates = Certificates(issuer.cert, issuer.key)
    before = certificates.context
    old = issuer.key.read_bytes()
    match trouble:
        case "gone":
            issuer.cert.unlink()
        case "garbage":
            replace(issuer.cert, b"garbage")
        case "expired":
            issuer.write("chat.example.com", days=-1, since_days=9)
        case "half":
            issuer.write("chat.example.com")
            replace(issuer.key, old)
    assert not certificates.renew()
    assert certificates.context is before
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith("tls_")
    assert "is used on" in record.getMessage()


def test_one_that_has_expired_is_used_at_the_start_and_logged(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that does not start is worse than one that clients may refuse."""
    issuer.write("chat.example.com", days=-1, since_days=9)
    assert Certificates(issuer.cert, issuer.key).context
    assert "has expired on" in caplog.text


async def test_files_that_change_are_read(issuer: Issuer) -> None:
    """Also where a link is led elsewhere, as Kubernetes renews what it mounts."""
    folder = issuer.cert.parent
    for number in (1, 2):
        (folder / f"{number}").mkdir()
    other = Issuer(folder / "2")
    other.write("second.example.com")
    for file in (issuer.cert, issuer.key):
        (folder / "1" / file.name).write_bytes(file.read_bytes())
    link = folder / "current"
    link.symlink_to("1")
    certificates = Certificates(link / "chain.pem", link / "key.pem")
    following = asyncio.create_task(certificates.follow(0.01))
    (folder / "next").symlink_to("2")
    (folder / "next").replace(link)
    await until(lambda: certificates.pair.names == ["second.example.com"], "read")
    other.write("third.example.com")
    await until(lambda: certificates.pair.names == ["third.example.com"], "read again")
    following.cancel()
    await asyncio.wait([following], timeout=BOUND_S)


async def test_one_that_does_not_hold_yet_waits(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it does, the old one is used on; that is said once."""
    certificates = Certificates(issuer.cert, issuer.key)
    following = asyncio.create_task(certificates.follow(0.005))
    issuer.write("tomorrow.example.com", since_days=-1)
    await until(lambda: "is used till then" in caplog.text, "said")
    await asyncio.sleep(0.1)
    assert caplog.text.count("is used till then") == 1
    assert certificates.pair.names == ["chat.example.com", "127.0.0.1"]
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1, seconds=1)
    monkeypatch.setattr(module, "_now", lambda: tomorrow)
    await until(lambda: certificates.pair.names == ["tomorrow.example.com"], "used")
    following.cancel()
    await asyncio.wait([following], timeout=BOUND_S)


async def test_a_bad_change_is_said_once(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """And not at every look; the next good one is taken."""
    certificates = Certificates(issuer.cert, issuer.key)
    following = asyncio.create_task(certificates.follow(0.005))
    replace(issuer.cert, b"garbage")
    await until(lambda: "is used on" in caplog.text, "said")
    await asyncio.sleep(0.1)
    assert caplog.text.count("is used on") == 1
    issuer.write("new.example.com")
    await until(lambda: certificates.pair.names == ["new.example.com"], "read")
    following.cancel()
    await asyncio.wait([following], timeout=BOUND_S)
