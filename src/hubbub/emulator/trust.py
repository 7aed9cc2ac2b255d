"""TLS on this machine: an authority that lives as long as one run, and what makes functions trust it and nobody else.

Functions that build `https://{domainName}/…` or `https://{api}.execute-api.{region}.amazonaws.com/…` reach us over TLS
unchanged. Nothing on the machine is changed for that: who is to trust the authority is told so by environment
variables. Its key and those of its certificates never leave this process, but for the moment in which OpenSSL reads one
from a private file, so an authority that somebody has put into a browser is of no use to anybody after the run.
"""

from __future__ import annotations

import datetime
import os
import re
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import certifi
import trustme

LOOPBACK = ("localhost", "127.0.0.1", "::1")

MAX_CONTEXTS = 64
"""How many kinds of AWS's names have certificates at a time; names of more get the one for this machine."""

VALID_DAYS = 90
"""How long certificates hold: longer than a run, and shorter than what is too long for any client (Apple: 825 days)."""

_SYSTEM = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Where systems keep theirs: Debian, Fedora, macOS and Alpine."""

_APIS = re.compile(r"[a-z0-9-]+\.(execute-api\.[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?)")
_SERVICES = re.compile(r"[a-z0-9-]+\.((?:[a-z0-9-]+\.){0,8}amazonaws\.com(?:\.cn)?)")
"""Names of APIs, and all of AWS's; a certificate is for everything before the same end."""

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_BUNDLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables whose file replaces all authorities: of botocore; OpenSSL, Go, Ruby, httpx; requests; curl."""

_EXTRA = "NODE_EXTRA_CA_CERTS"
"""Node's, whose file adds to those it has."""


class Authority:
    """An authority for one run: `with Authority() as authority: …`. Its files are gone after the block.

    Args:
        hosts: more names and addresses, of this machine and of custom domains; `*.example.com` is one.
        environment: whose bundles functions are to trust as well; ours by default.
        within: a folder for its own; by default where temporary files are.

    Raises:
        ValueError: a host is no name and no address.

    Attributes:
        certificate: the PEM file of the authority alone, for whoever is to trust it by hand.
        bundle: the PEM file of the authority and all those that would be trusted without it.

    """

    certificate: Path
    bundle: Path

    def __init__(
        self, hosts: Iterable[str] = (), *, environment: Mapping[str, str] = os.environ, within: Path | None = None
    ) -> None:
        self._environment = environment
        self._within = within
        self._authority = trustme.CA(
            organization_name="Hubbub", organization_unit_name="local authority of one run, for nothing else"
        )
        self._own = self._context(*dict.fromkeys((*LOOPBACK, *hosts)))
        self._own.sni_callback = partial(self._choose, _APIS)
        self._services = self._context("amazonaws.com")
        self._services.sni_callback = partial(self._choose, _SERVICES)
        self._contexts: dict[str, ssl.SSLContext] = {}  # by the end of the names that they are for
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # set in the block

    def __repr__(self) -> str:
        return f"<Authority in {self._folder.name if self._folder else 'no folder'}>"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="hubbub-trust-", dir=self._within)
        folder = Path(self._folder.name)
        ours = self._authority.cert_pem.bytes().decode()
        try:
            self.certificate = _written(folder / "authority.pem", [ours])
            self.bundle = _written(folder / "bundle.pem", [ours, *self._trusted()])
            self._extra = self.certificate
            if self._environment.get(_EXTRA):
                self._extra = _written(folder / "extra.pem", [ours, *_certificates(self._environment[_EXTRA])])
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def server_context(self) -> ssl.SSLContext:
        """What servers here speak TLS with: HTTP/1.1, and the certificate of the name that the client asks for."""
        return self._own

    @property
    def service_context(self) -> ssl.SSLContext:
        """The same for who stands in for AWS's services by their own names; nobody else has certificates for them."""
        return self._services

    def client_context(self) -> ssl.SSLContext:
        """What clients here trust: this authority alone."""
        context = ssl.create_default_context(cadata=self._authority.cert_pem.bytes().decode())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def environment(self) -> dict[str, str]:
        """What makes SDKs and HTTP libraries in functions trust this authority, and all that they would otherwise."""
        return {**dict.fromkeys(_BUNDLES, str(self.bundle)), _EXTRA: str(self._extra)}

    def _choose(
        self,
        kind: re.Pattern[str],
        connection: ssl.SSLSocket | ssl.SSLObject,
        name: str | None,
        context: ssl.SSLContext,
    ) -> None:
        """Take the certificate for AWS's names with one end where one of them is asked for; made when the first is."""
        found = kind.fullmatch((name or "").lower())
        if found is None:
            return
        end = found[1]
        if end not in self._contexts and len(self._contexts) < MAX_CONTEXTS:
            self._contexts[end] = self._context(f"*.{end}")
        connection.context = self._contexts.get(end, context)

    def _context(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for `names`."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        now = datetime.datetime.now(datetime.UTC)
        certificate = self._authority.issue_cert(
            *names,
            organization_name="Hubbub",
            not_before=now - datetime.timedelta(days=1),
            not_after=now + datetime.timedelta(days=VALID_DAYS),
        )
        certificate.configure_cert(context)
        return context

    def _trusted(self) -> list[str]:
        """What is trusted without us: the files that the environment names, the system's, and certifi's."""
        named = [self._environment.get(name) for name in _BUNDLES]
        files = [*named, ssl.get_default_verify_paths().openssl_cafile, *_SYSTEM, certifi.where()]
        found: dict[str, None] = {}
        for file in dict.fromkeys(filter(None, files)):
            found |= dict.fromkeys(_certificates(file))
        return list(found)


def _certificates(file: str) -> list[str]:
    """The certificates in a PEM file; none where it cannot be read, as for those who would use it without us."""
    try:
        text = Path(file).read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return _PEM.findall(text)


def _written(path: Path, certificates: Iterable[str]) -> Path:
    path.write_text("".join(f"{each.strip()}\n" for each in certificates), encoding="ascii")
    return path
