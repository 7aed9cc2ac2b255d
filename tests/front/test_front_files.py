"""What deploy/ ships for proxies is what the proxies themselves take."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from frontlab import DEPLOY, FILES, Certificate, program, replaced
from live import BOUND_S

CHECKS = {
    "nginx": ["-t", "-q", "-c"],
    "haproxy": ["-c", "-q", "-f"],
    "caddy": ["validate", "--adapter", "caddyfile", "--config"],
}


def checked(kind: str, file: Path) -> subprocess.CompletedProcess[str]:
    """What the proxy's own check says to a file."""
    return subprocess.run(
        [program(kind), *CHECKS[kind], str(file)], capture_output=True, text=True, timeout=BOUND_S, check=False
    )


@pytest.mark.parametrize("kind", FILES)
def test_the_shipped_file_is_valid(kind: str, tmp_path: Path) -> None:
    """With a certificate where it looks for one, the proxy takes the file without a warning; broken, it does not."""
    certificate = Certificate(tmp_path)
    places = {
        "nginx": {
            "/etc/nginx/tls/fullchain.pem": str(certificate.chain),
            "/etc/nginx/tls/privkey.pem": str(certificate.key),
            "/run/nginx.pid": f"{tmp_path}/nginx.pid",
            "/var/log/nginx": str(tmp_path),
        },
        "haproxy": {"/etc/haproxy/tls/hubbub.pem": str(certificate.both)},
        "caddy": {
            "/etc/caddy/tls/fullchain.pem": str(certificate.chain),
            "/etc/caddy/tls/privkey.pem": str(certificate.key),
        },
    }
    file = tmp_path / FILES[kind]
    text = replaced((DEPLOY / FILES[kind]).read_text(), places[kind])
    file.write_text(text)
    said = checked(kind, file)
    assert said.returncode == 0, said.stderr
    warnings = [line for line in said.stderr.splitlines() if "warn" in line.lower() and "OCSP" not in line]
    assert warnings == []  # but that the test's certificate has nobody to ask about it
    file.write_text(f"{text}\n}}}}\n")
    assert checked(kind, file).returncode != 0
