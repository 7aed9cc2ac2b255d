"""The authority of a run: who trusts it, for which names, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import certifi
import pytest
from cryptography import x509

from hubbub.emulator import trust
from hubbub.emulator.trust import Authority
from live import BOUND_S
from nodejs import NODE

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntrusted"


@pytest.fixture
async def port() -> AsyncIterator[tuple[Authority, int]]:
    """An authority, and the port of a server that speaks TLS with it and always answers the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    with Authority(["chat.example.com", "*.wild.example.com", "10.1.2.3"]) as authority:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=authority.server_context)
        async with server:
            yield authority, server.sockets[0].getsockname()[1]


async def certificate(authority: Authority, port: int, name: str) -> x509.Certificate:
    """The certificate that a client gets which asks for `name`, once it has found it good."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.client_context(), server_hostname=name)
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "http/1.1"
    found = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    writer.transport.abort()
    return found


def blocks(pem: str) -> list[str]:
    """The certificates in a PEM file, not looked into: some roots are older than today's rules."""
    return ["".join(each.split("-----END")[0].split()) for each in pem.split("-----BEGIN CERTIFICATE-----")[1:]]


def names(found: x509.Certificate) -> list[str]:
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in extension]


async def output(command: list[str], environment: dict[str, str]) -> str:
    """What a command says that must succeed, with that in an environment that knows of no other authority."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command, env={**kept, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), BOUND_S)
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "::1", "chat.example.com", "a.wild.example.com", "10.1.2.3"]
)
async def test_the_names_of_this_machine_and_given_ones_are_certified(port: tuple[Authority, int], name: str) -> None:
    """A client that trusts the authority accepts each of the names, addresses among them."""
    await certificate(*port, name)


@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-2", "us-gov-west-1", "cn-north-1"])
async def test_a_region_s_apis_are_certified_when_asked_for(port: tuple[Authority, int], region: str) -> None:
    """The APIs of any region have one certificate together, made once."""
    end = ".cn" if region.startswith("cn-") else ""
    hosts = [f"{api}.execute-api.{region}.amazonaws.com{end}" for api in ("abcdef1234", "Hubbub0000")]
    first, second = [await certificate(*port, host) for host in hosts]
    assert names(first) == [f"*.execute-api.{region}.amazonaws.com{end}"]
    assert first == second


@pytest.mark.parametrize(
    "name",
    [
        "sqs.us-east-1.amazonaws.com",
        "a.b.execute-api.us-east-1.amazonaws.com",
        "execute-api.us-east-1.amazonaws.com.evil.com",
    ],
)
async def test_other_names_are_not_certified(port: tuple[Authority, int], name: str) -> None:
    """Nobody else's name gets a certificate, not even others of AWS."""
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await certificate(*port, name)


async def test_regions_have_a_bound(port: tuple[Authority, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who invents regions gets no certificates without end; those that are there stay good."""
    monkeypatch.setattr(trust, "MAX_CONTEXTS", 1)
    await certificate(*port, "a.execute-api.us-east-1.amazonaws.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        await certificate(*port, "a.execute-api.us-east-2.amazonaws.com")
    await certificate(*port, "a.execute-api.us-east-1.amazonaws.com")


async def test_certificates_are_short_lived(port: tuple[Authority, int]) -> None:
    """No certificate holds for longer than any client accepts."""
    found = await certificate(*port, "localhost")
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days <= 397


PYTHON = {
    "botocore": "import sys, botocore.httpsession as h, botocore.awsrequest as r;"
    " print(h.URLLib3Session(verify=__import__('os').environ['AWS_CA_BUNDLE'])"
    ".send(r.AWSRequest('GET', sys.argv[1]).prepare()).text)",
    "httpx": "import sys, httpx; print(httpx.get(sys.argv[1]).text)",
    "requests": "import sys, requests; print(requests.get(sys.argv[1]).text)",
    "urllib": "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
}


@pytest.mark.parametrize("library", PYTHON)
async def test_python_s_libraries_trust_it(port: tuple[Authority, int], library: str) -> None:
    """A function in Python reaches us over TLS with nothing but its environment, and is refused without."""
    authority, number = port
    command = [sys.executable, "-c", PYTHON[library], f"https://localhost:{number}/"]
    assert "trusted" in await output(command, authority.environment())
    other = dict.fromkeys(authority.environment(), certifi.where())
    with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED"):
        await output(command, other)


async def test_curl_trusts_it(port: tuple[Authority, int]) -> None:
    """So does curl."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    authority, number = port
    assert await output(["curl", "-sS", f"https://localhost:{number}/"], authority.environment()) == "trusted"


async def test_node_trusts_it(port: tuple[Authority, int]) -> None:
    """So does Node.js."""
    authority, number = port
    script = f"require('https').get('https://localhost:{number}/', r => r.pipe(process.stdout))"
    assert await output([NODE, "-e", script], authority.environment()) == "trusted"


def test_what_is_trusted_anyway_is_still_trusted(tmp_path: Path) -> None:
    """The bundle has certifi's authorities and those of the user's own bundles, each once; Node's extra ones stay."""
    with Authority(environment={}) as other, Authority(environment={}) as third:
        (tmp_path / "own.pem").write_text(f"# our company\n{other.certificate.read_text()}")
        given = {
            "REQUESTS_CA_BUNDLE": str(tmp_path / "own.pem"),
            "AWS_CA_BUNDLE": str(tmp_path / "nowhere.pem"),
            "SSL_CERT_FILE": certifi.where(),
            "NODE_EXTRA_CA_CERTS": str(third.certificate),
        }
        with Authority(environment=given) as authority:
            bundle = authority.bundle.read_text()
            assert other.certificate.read_text() in bundle
            assert authority.certificate.read_text() in bundle
            assert third.certificate.read_text() not in bundle
            roots = blocks(bundle)
            assert len(roots) == len(set(roots))
            assert set(blocks(Path(certifi.where()).read_text())) <= set(roots)
            assert ssl.create_default_context(cadata=bundle).cert_store_stats()["x509_ca"] > 100
            extra = Path(authority.environment()["NODE_EXTRA_CA_CERTS"]).read_text()
            assert extra == authority.certificate.read_text() + third.certificate.read_text()


def test_nothing_of_it_is_left_behind() -> None:
    """Its files are for nobody else, hold no key, and are gone after the run; the next run has another authority."""
    with Authority() as first, Authority() as second:
        folder = first.certificate.parent
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IRWXU
        assert first.certificate.read_text() != second.certificate.read_text()
        for file in folder.iterdir():
            assert "PRIVATE KEY" not in file.read_text()
        assert set(first.environment()) == {
            "AWS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
        }
    assert not folder.exists()


def test_a_host_that_is_none_is_refused() -> None:
    """A name that cannot be certified is an error at once."""
    with pytest.raises(ValueError, match="bad host"):
        Authority(["bad host"])
