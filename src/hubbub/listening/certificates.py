"""What a node speaks TLS with: a certificate and its key in files, read again when they are renewed.

A pair is looked over before it is used: one that cannot be read, does not belong together or has expired is refused
with what is wrong with it, and what was used before is used on.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

logger = logging.getLogger("hubbub")

LOOK_EVERY_S = 5.0
"""How often the files are looked at."""

_Stamp = tuple[tuple[int, ...] | None, ...]
"""By what a change of the files is seen; None in it for one that is not there."""


class BadCertificate(ValueError):
    """A certificate or key cannot be used; the message names the setting, what was expected, and what is there."""


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its key, as they were read.

    Attributes:
        context: what servers speak TLS with.
        names: what the certificate is for, such as `chat.example.com` and `127.0.0.1`.
        begins, expires: when it holds.

    """

    context: ssl.SSLContext
    names: list[str]
    begins: datetime.datetime
    expires: datetime.datetime

    def __repr__(self) -> str:
        return f"<Pair for {', '.join(self.names)} until {self.expires:%Y-%m-%d}>"


def read_pair(certificate: Path, key: Path | None = None) -> Pair:
    """Read a certificate, those that vouch for it, and its key, all in PEM.

    Args:
        certificate: the file with the server's own certificate first, and the intermediate ones after it.
        key: the file with its private key; by default that is in the first.

    Raises:
        BadCertificate: one cannot be read or used, or they do not belong together.

    """
    own = _certificate(certificate)
    keys = key or certificate
    try:
        its_key, names = own.public_key().public_bytes(*_PUBLIC), _names(own)
    except _UNREADABLE as error:
        raise BadCertificate(f"tls_cert: expected a certificate that can be used in {certificate}: {error}") from error
    if its_key != _public_key(keys):
        raise BadCertificate(f"tls_key: expected the key of the certificate in {certificate}, got another in {keys}")
    try:
        context = server_context()
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is the first
        raise BadCertificate(f"tls_cert: OpenSSL cannot use {certificate}: {error}") from error
    return Pair(context, names, own.not_valid_before_utc, own.not_valid_after_utc)


def server_context() -> ssl.SSLContext:
    """What servers speak TLS with, still without a certificate: TLS 1.2 or 1.3, HTTP/1.1 on it, no client's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL 1.1 lets clients ask for handshakes without end
    context.set_alpn_protocols(["http/1.1"])
    return context


_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What is raised for certificates and keys that are none, or of a kind that is not known."""


def _certificate(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_content("tls_cert", file))[0]
    except _UNREADABLE as error:
        if isinstance(error, BadCertificate):
            raise
        raise BadCertificate(f"tls_cert: expected certificates in PEM in {file}, got something else") from error


def _public_key(file: Path) -> bytes:
    try:
        return load_pem_private_key(_content("tls_key", file), None).public_key().public_bytes(*_PUBLIC)
    except TypeError as error:
        raise BadCertificate(f"tls_key: expected a key without a passphrase in {file}, got one with") from error
    except _UNREADABLE as error:
        if isinstance(error, BadCertificate):
            raise
        raise BadCertificate(f"tls_key: expected a private key in PEM in {file}, got something else") from error


def _content(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{name}: cannot read {file}: {error.strerror or error}") from error


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    ]


def _no_passphrase() -> str:
    """OpenSSL would ask the terminal."""
    raise ValueError("the key has a passphrase")


class Certificates:
    """The certificate of a node and its key, renewed while it runs.

    Args:
        certificate, key: as for `read_pair`.

    Raises:
        BadCertificate: as `read_pair`. One that has expired is used nevertheless: who restarts a server that is in
            trouble is better off with one that runs.

    Attributes:
        pair: what is used from now on.

    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._files = (certificate,) if key is None else (certificate, key)
        self._seen = self._stamp()  # as the files were when they were last read
        self._next: datetime.datetime | None = None  # from when on they hold; None where they do, or were refused
        self.pair = read_pair(*self._files)
        if self.pair.expires <= _now():
            logger.error("%s", self._expired(self.pair))

    def __repr__(self) -> str:
        return f"<Certificates {self.pair!r}>"

    @property
    def context(self) -> ssl.SSLContext:
        """What the next connection speaks TLS with."""
        return self.pair.context

    def expires(self) -> float:
        """When the one in use expires, epoch seconds."""
        return self.pair.expires.timestamp()

    def renew(self) -> bool:
        """Read the files again; False, and a word in the log, where what is there is refused or does not hold yet."""
        self._seen, self._next = self._stamp(), None
        try:
            fresh = read_pair(*self._files)
            if fresh.expires <= _now():
                raise BadCertificate(self._expired(fresh))
        except BadCertificate as bad:
            logger.error("%s; the certificate until %s is used on", bad, f"{self.pair.expires:%Y-%m-%d}")
            return False
        if fresh.begins > _now():
            self._next = fresh.begins
            logger.warning(
                "tls_cert: the certificate in %s holds from %s UTC only: the one until %s is used till then",
                self._files[0],
                f"{fresh.begins:%Y-%m-%d %H:%M}",
                f"{self.pair.expires:%Y-%m-%d}",
            )
            return False
        self.pair = fresh
        logger.info("a renewed certificate is used, which expires on %s", f"{fresh.expires:%Y-%m-%d}")
        return True

    async def follow(self, every_s: float = LOOK_EVERY_S) -> None:
        """Renew whenever the files have changed, or what they hold has begun to hold, for ever."""
        before = self._seen
        while True:
            await asyncio.sleep(every_s)
            now = await asyncio.to_thread(self._stamp)
            # Two files are not written at once: they are read when two looks at them see the same.
            if now == before and (now != self._seen or (self._next is not None and self._next <= _now())):
                await asyncio.to_thread(self.renew)
            before = now

    def _stamp(self) -> _Stamp:
        return tuple(map(_stamp, self._files))

    def _expired(self, pair: Pair) -> str:
        return f"tls_cert: the certificate in {self._files[0]} has expired on {pair.expires:%Y-%m-%d}"


def _stamp(file: Path) -> tuple[int, ...] | None:
    """By what it is seen that a file was written or replaced, also where a link in its path was."""
    try:
        known = file.stat()
    except OSError:
        return None
    return known.st_dev, known.st_ino, known.st_mtime_ns, known.st_size


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
