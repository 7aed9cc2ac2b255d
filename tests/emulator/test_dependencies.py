"""What functions need and do not bring along: installed once into the user's cache, or said why not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from functionlab import Source, is_running
from stacklab import Sketch, background, client

from hubbub.emulator import dependencies
from hubbub.emulator.definition import Function
from hubbub.emulator.dependencies import Dependencies, cache_folder
from live import until


def wheel(folder: Path, word: str = "one", name: str = "hubbubword") -> Path:
    """A package that needs nobody to build or fetch it: `from hubbubword import WORD`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"WORD = {word!r}\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return path


WORD = "from hubbubword import WORD\ndef handler(event, context): return {'body': '{\"said\": \"%s\"}' % WORD}\n"


async def ours(runtime: str) -> str:
    """The interpreter that runs everything."""
    return sys.executable


class Lab:
    """What is installed for functions of one folder.

    Attributes:
        source: their code.
        cache: where to.
        said: what is told of it.

    """

    def __init__(self, source: Source, cache: Path) -> None:
        self.source = source
        self.cache = cache
        self.said: list[str] = []
        self.dependencies = Dependencies(source.folder, interpreter=ours, say=self.said.append, cache=cache)

    async def layers(self, **fields: Any) -> tuple[Path, ...]:
        """The layers of a function of that folder."""
        (function,) = await self.dependencies.add([self.source.function(**fields)])
        return function.layers


@pytest.fixture
async def lab(source: Source, tmp_path: Path) -> AsyncIterator[Lab]:
    """An empty folder and an empty cache; what is being installed at the end is ended."""
    lab = Lab(source, tmp_path / "cache")
    try:
        yield lab
    finally:
        await lab.dependencies.close()


def fake(folder: Path, name: str, script: str, patch: pytest.MonkeyPatch) -> Path:
    """A program that is found first; the file that it writes its arguments to, one call a line."""
    calls = folder / f"{name}.calls"
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho "$PWD" "$@" >> {calls}\n{script}\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return calls


# Python


async def test_a_stacks_functions_get_what_their_requirements_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed once for all functions and all runs, relative paths from the file's folder; a change is followed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "hubbub"
    sketch = Sketch(tmp_path / "demo").function("First", WORD).function("Second", WORD)
    sketch.resources["Second"]["Properties"]["Code"] = "./first"
    sketch.api("Chat", first="First", second="Second")
    folder = sketch.code("First", f"../one/{wheel(sketch.folder / 'one').name}\n", "requirements.txt").parent
    with background(sketch.write(), watch=True) as (stack, record):
        assert [said for said in record.said if "install" in said] == [
            f"installing {folder / 'requirements.txt'} for First"
        ]
        async with client(stack.url) as ann:
            assert await ann.ask(action="first") == await ann.ask(action="second") == {"said": "one"}
            before = len(record.said)
            sketch.code("First", f"../two/{wheel(sketch.folder / 'two', 'two').name}\n", "requirements.txt")
            await record.tells("First, Second start anew", after=before)
            assert await ann.ask(action="first") == {"said": "two"}
    with background(sketch.path) as (stack, record):
        assert not [said for said in record.said if "install" in said]
        async with client(stack.url) as ann:
            assert await ann.ask(action="second") == {"said": "two"}


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n\n", "PyJWT>=2.0  # is here\n", "boto3==1.2.3\n", "no-such-thing; python_version < '3'\n"],
)
async def test_what_is_here_already_is_not_installed(lab: Lab, text: str) -> None:
    """What this environment meets, what Lambda's images have, and what is not meant for this Python."""
    lab.source.write("requirements.txt", text)
    assert await lab.layers() == ()
    assert lab.said == []


async def test_own_layers_come_over_what_is_installed(lab: Lab, tmp_path: Path) -> None:
    """The installed one is merged first."""
    lab.source.write("requirements.txt", f"./{wheel(lab.source.folder).name}\n")
    mine = tmp_path / "mine"
    installed, own = await lab.layers(layers=(mine,))
    assert own == mine
    assert (installed / "python" / "hubbubword.py").read_text() == "WORD = 'one'\n"
    assert installed.parent == lab.cache / "python"


async def test_what_cannot_be_installed_is_told_in_pips_words(lab: Lab) -> None:
    """Once for all functions, and nothing half is kept; the function goes without."""
    lab.source.write("requirements.txt", "./not-here-1.0-py3-none-any.whl\n")
    first, second = (lab.source.function(name=name) for name in ("first", "second"))
    assert [each.layers for each in await lab.dependencies.add([first, second])] == [(), ()]
    installing, failed = lab.said
    assert installing.startswith("installing ")
    assert failed.startswith(f"could not install {lab.source.folder / 'requirements.txt'} for first: ")
    assert "not-here-1.0-py3-none-any.whl" in failed.partition("\n")[2]
    assert list((lab.cache / "python").iterdir()) == []


async def test_a_file_that_is_no_text_is_told(lab: Lab) -> None:
    """As what pip says of it."""
    (lab.source.folder / "requirements.txt").write_bytes(b"\xff\xfe\x00\xff\n")
    assert await lab.layers() == ()
    assert "could not install" in lab.said[-1]


async def test_without_pip_uv_installs(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that uv has made has no pip; where there is no uv either, that is said."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    lab.source.write("requirements.txt", "hubbubword\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await lab.layers() == ()
    assert lab.said[-1].endswith(f"there is neither pip in {sys.prefix} nor uv")
    calls = fake(tmp_path, "uv", 'for last; do :; done; mkdir -p "$last"', monkeypatch)
    (layer,) = await lab.layers()
    folder, *arguments = calls.read_text().split()
    assert folder == str(lab.source.folder)
    assert arguments[:5] == ["pip", "install", "--quiet", "--python", sys.executable]
    assert arguments[5:7] == ["-r", str(lab.source.folder / "requirements.txt")]
    assert arguments[7] == "--target"
    assert Path(arguments[8]).name == "python" and (layer / "python").is_dir()


# Node.js


async def test_node_functions_get_the_sdk_that_they_import_and_what_their_package_names(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lambda's images have in any version, the rest as package.json says; not what is there, nor local paths."""
    calls = fake(tmp_path, "npm", 'for last; do :; done; mkdir -p "$last/node_modules"', monkeypatch)
    lab.source.write("index.mjs", 'import { A } from "@aws-sdk/client-sqs";\nawait import("@smithy/types");\n')
    lab.source.write("lib/old.cjs", "const { B } = require('@aws-sdk/client-sns'); const fs = require('fs');\n")
    lab.source.write("node_modules/left/index.js", 'import "@aws-sdk/client-ec2"\n')
    package = {"dependencies": {"ws": "^8.0.0", "left": "1", "mine": "file:../mine", "@aws-sdk/client-sns": "3.1.0"}}
    lab.source.write("package.json", json.dumps(package))
    (layer,) = await lab.layers(runtime="nodejs20.x", handler="index.handler")
    folder, *arguments = calls.read_text().split()
    assert folder == str(lab.source.folder)
    assert [each for each in arguments if "@" in each] == [
        "@aws-sdk/client-sns@3.1.0",
        "@aws-sdk/client-sqs@latest",
        "@smithy/types@latest",
        "ws@^8.0.0",
    ]
    assert (layer / "nodejs" / "node_modules").is_dir()
    assert await lab.layers(runtime="nodejs20.x", handler="index.handler") == (layer,)
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(("runtime", "wanted"), [("nodejs16.x", ["aws-sdk@latest"]), ("nodejs20.x", [])])
async def test_version_2_of_the_sdk_was_in_old_images_alone(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, wanted: list[str]
) -> None:
    """As on AWS, a function for a newer image has to bring it along."""
    calls = fake(tmp_path, "npm", 'for last; do :; done; mkdir -p "$last"', monkeypatch)
    lab.source.write("index.js", "const AWS = require('aws-sdk');\n")
    await lab.layers(runtime=runtime, handler="index.handler")
    asked = calls.read_text().split() if calls.exists() else []
    assert [each for each in asked if "@" in each] == wanted


async def test_without_npm_it_says_how_to_get_it(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for which function, and what it would install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    lab.source.write("index.mjs", 'import "@aws-sdk/client-sqs"\n')
    assert await lab.layers(runtime="nodejs20.x", handler="index.handler") == ()
    missing = "could not install @aws-sdk/client-sqs@latest for worker: there is no npm"
    assert lab.said == [f"{missing}; Debian has it as: apt-get install npm"]


async def test_an_installation_that_takes_too_long_is_given_up(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that it started, and what it said last is told."""
    monkeypatch.setattr(dependencies, "INSTALL_WITHIN_S", 0.5)
    pids = tmp_path / "pids"
    fake(tmp_path, "npm", f"echo fetching; sleep 600 & echo $! > {pids}; wait", monkeypatch)
    lab.source.write("index.mjs", 'import "@aws-sdk/client-sqs"\n')
    assert await lab.layers(runtime="nodejs20.x", handler="index.handler") == ()
    assert lab.said[-1].endswith("it took longer than 0.5 s\nfetching")
    await until(lambda: not is_running(int(pids.read_text())), "the end of what npm started")
    assert list((lab.cache / "nodejs").iterdir()) == []


async def test_what_is_being_installed_ends_with_the_stack(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` ends it with all that it started, and nothing half is kept."""
    pids = tmp_path / "pids"
    fake(tmp_path, "npm", f"sleep 600 & echo $! > {pids}; wait", monkeypatch)
    lab.source.write("index.mjs", 'import "@aws-sdk/client-sqs"\n')
    adding = asyncio.create_task(lab.layers(runtime="nodejs20.x", handler="index.handler"))
    await until(lambda: pids.is_file() and bool(pids.read_text()), "npm")
    adding.cancel()
    await asyncio.wait([adding])
    await lab.dependencies.close()
    await until(lambda: not is_running(int(pids.read_text())), "the end of what npm started")
    assert list((lab.cache / "nodejs").iterdir()) == []


async def test_other_runtimes_need_nothing(lab: Lab) -> None:
    """What they need they bring along."""
    lab.source.write("requirements.txt", "no-such-thing\n")
    lab.source.write("package.json", '{"dependencies": {"ws": "8"}}')
    assert await lab.layers(runtime="provided.al2023") == ()
    assert lab.said == []


async def test_a_package_file_that_is_none_is_left_to_node(lab: Lab) -> None:
    """It is no error here: Node.js says what is wrong with it when the function runs."""
    lab.source.write("package.json", "{")
    assert await lab.layers(runtime="nodejs20.x", handler="index.handler") == ()
    lab.source.write("package.json", '{"dependencies": 5}')
    function: Function = lab.source.function(runtime="nodejs20.x", handler="index.handler")
    assert await lab.dependencies.add([function]) == [function]
