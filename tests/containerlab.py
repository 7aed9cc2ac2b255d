"""deploy/Dockerfile without a builder of images: its commands run on folders of ours, and what they make is started.

There is no base image here. What stands for it is the Python of the tests; the commands, the context, the variables,
the user, the health check and the entry point are the file's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from docker.utils.build import exclude_paths

from deploylab import ROOT
from live import BOUND_S, SECRET

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
BUILT_WITHIN_S = 300.0

_UNREACHABLE = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError")


class Instruction(NamedTuple):
    """One of a Dockerfile, on one line."""

    keyword: str
    text: str


def instructions(text: str) -> list[Instruction]:
    """What a Dockerfile says, without its comments."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", lines)
    parts = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(keyword, rest.strip()) for keyword, rest in parts]


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[Instruction]] = []
    for each in instructions(text):
        if each.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


def only(stage: list[Instruction], keyword: str) -> str:
    """The text of the one instruction of a kind."""
    (text,) = [each.text for each in stage if each.keyword == keyword]
    return text


def pairs(text: str) -> dict[str, str]:
    """What an ENV or LABEL sets."""
    return {name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S+)', text)}


def context() -> set[str]:
    """The files that a builder gets, as Docker's own library reads .dockerignore."""
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
    ]
    found = exclude_paths(str(ROOT), ignored)  # and .dockerignore, which was once sent too
    return {path for path in found if path != ".dockerignore" and not (ROOT / path).is_dir()}


class Image:
    """What the Dockerfile's build stage makes, in a folder, and how it is started.

    Args:
        folder: an empty one that everybody may read.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "opt" / "hubbub"
        self.source = folder / "src"
        self._build, self._final = stages(DOCKERFILE.read_text())

    @property
    def environment(self) -> dict[str, str]:
        """What the image sets, with its paths where they are here."""
        stated = pairs(only(self._final, "ENV"))
        path = self._moved(stated.pop("PATH")).replace("$PATH", os.environ["PATH"])
        return {**stated, "PATH": path, "HOME": self._home_of_user(), "HUBBUB_DATA": str(self.folder / "data")}

    @property
    def packages(self) -> Path:
        """Where the libraries are."""
        (found,) = self.home.glob("lib/python3*/site-packages")
        return found

    @property
    def command(self) -> list[str]:
        """ENTRYPOINT and CMD, in the form that no shell sees."""
        return [*json.loads(only(self._final, "ENTRYPOINT")), *json.loads(only(self._final, "CMD"))]

    @property
    def user(self) -> int:
        """The number that it runs as."""
        return int(only(self._final, "USER").partition(":")[0])

    def build(self) -> None:
        """Run the commands of the build stage on the context."""
        for path in context():
            (self.source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, self.source / path, follow_symlinks=False)
        (self.folder / "app").mkdir()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        for each in self._build:
            if each.keyword == "RUN":
                done = subprocess.run(
                    ["sh", "-ec", self._moved(each.text)],
                    cwd=self.source,
                    env={**os.environ, "PATH": path},
                    capture_output=True,
                    text=True,
                    timeout=BUILT_WITHIN_S,
                )
                if done.returncode and _UNREACHABLE.search(done.stderr):
                    pytest.skip(f"THE DOCKERFILE'S STEPS WERE NOT TRIED: pip reached no index:\n{done.stderr[-500:]}")
                assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def running(self, **settings: str) -> Iterator[Container]:
        """The image's command with no rights and nothing to write to; returns once it has announced itself."""
        host_ports = {"HUBBUB_PORT": str(_free_port()), "HUBBUB_ADMIN_PORT": str(_free_port())}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HUBBUB_", "PG"))}
        environment = {**kept, **self.environment, **host_ports, "HUBBUB_SECRET": SECRET, **settings}
        container = Container(self, environment)
        try:
            container.start()
            yield container
        finally:
            container.kill()

    def health_command(self) -> list[str]:
        """What HEALTHCHECK runs."""
        words: list[str] = json.loads(only(self._final, "HEALTHCHECK").partition(" CMD ")[2])
        return words

    def _home_of_user(self) -> str:
        """What runtimes give as HOME: the user's, from the image's list of users."""
        found = re.search(r"useradd .*--home-dir (\S+)", " ".join(each.text for each in self._final))
        assert found is not None
        return found[1]

    def _moved(self, text: str) -> str:
        return text.replace("/opt/hubbub", str(self.home))


class Container:
    """The image's command as a process: as its user where we are root, all file systems read-only where that can be."""

    def __init__(self, image: Image, environment: Mapping[str, str]) -> None:
        self.image = image
        self.environment = dict(environment)
        self.output = image.folder / f"node-{environment['HUBBUB_PORT']}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def said(self) -> str:
        """What it wrote."""
        return self.output.read_text(errors="replace")

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['HUBBUB_PORT']}"

    @property
    def ws_url(self) -> str:
        return f"ws{self.public_url.removeprefix('http')}/ws"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['HUBBUB_ADMIN_PORT']}"

    def start(self) -> None:
        """Start it, and wait for its word."""
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [*(confined(self.image.user) if can_confine() else []), *self.image.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.image.folder / "app",
                env=self.environment,
            )
        deadline = time.monotonic() + BOUND_S
        while "is running" not in self.said:
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not start:\n{self.said}"
            time.sleep(0.05)

    def health(self) -> int:
        """The status that the image's own health check ends with."""
        command = self.image.health_command()
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program is not None
        assert Path(program).is_relative_to(self.image.home)
        done = subprocess.run([program, *command[1:]], env=self.environment, capture_output=True, timeout=BOUND_S)
        return done.returncode

    def signal(self, number: signal.Signals) -> None:
        """What a runtime sends to the container's first process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it if it has not ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(BOUND_S)


def can_confine() -> bool:
    """Whether this machine lets us take everything from a process that a container's runtime takes."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    return not subprocess.run([*confined(10001), "true"], capture_output=True, timeout=BOUND_S).returncode


def confined(user: int) -> list[str]:
    """Words before a command that take its rights and make all it sees read-only.

    It may still read everything: the Python that stands for the base image's may be where only root can look. Each of
    the words execs the next, so that the process that is started in the end is the one that gets signals.
    """
    read_only = 'for at in / /tmp /var /dev/shm; do mountpoint -q $at && mount -o bind,remount,ro $at; done; exec "$@"'
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
    rights = [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", read_only, "sh", *drop, *rights]


def _free_port() -> int:
    """A port that nobody has, below those that the kernel gives to clients: it stays free until it is bound."""
    for port in random.sample(range(15_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("of a hundred ports none is free")
