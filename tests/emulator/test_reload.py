"""What is written while a stack runs: new code, new templates and broken ones, told when they have effect or not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from functionlab import is_running
from locallab import hubbub_local
from stacklab import Record, Sketch, background, client

from hubbub.emulator import BackgroundStack
from hubbub.emulator.following import Follower, Places
from live import until

SAYS = """\
    import json, os
    def handler(event, context):
        return {{"body": json.dumps({{"said": {what}}})}}
"""


class Lab:
    """A stack that is followed, and the files that it is made of."""

    def __init__(self, sketch: Sketch, stack: BackgroundStack, record: Record) -> None:
        self.sketch = sketch
        self.stack = stack
        self.record = record

    def write_code(self, name: str, what: str) -> None:
        """Let a function say something else."""
        self.sketch.code(name, SAYS.format(what=what))

    async def tells(self, words: str, after: int) -> str:
        """What is told once the stack has seen a change."""
        return await self.record.tells(words, after=after)

    @property
    def told(self) -> int:
        """How much was told so far."""
        return len(self.record.said)

    async def said(self, action: str) -> Any:
        """What a function says to a client that comes now."""
        async with client(self.stack.url) as ann:
            return (await ann.ask(action=action)).get("said")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A stack with three functions, one of them with a layer."""
    sketch = Sketch(tmp_path_factory.mktemp("reload") / "demo")
    for name in ("First", "Second"):
        sketch.function(name, SAYS.format(what="1"))
    sketch.code("Layer", "WORD = 'one'\n", "python/shared.py")
    sketch.resources["Layer"] = {"Type": "AWS::Lambda::LayerVersion", "Properties": {"Content": "./layer"}}
    sketch.function("Layered", SAYS.format(what="__import__('shared').WORD"), Layers=[{"Ref": "Layer"}])
    sketch.api("Chat", first="First", second="Second", layered="Layered", default="First")
    with background(sketch.write(), watch=True) as (stack, record):
        yield Lab(sketch, stack, record)


async def test_new_code_answers_the_next_message(lab: Lab) -> None:
    """Of the function whose code has changed, for a connection that was there before; the others are not touched."""
    async with client(lab.stack.url) as ann:
        assert await ann.ask(action="first") == {"said": 1}
        assert await ann.ask(action="second") == {"said": 1}
        starts = len([each for each in lab.record.reports if each.init_ms is not None])
        before = lab.told
        lab.write_code("First", "2")
        assert await lab.tells("changed", before) == "app.py changed: First start anew"
        assert await ann.ask(action="first") == {"said": 2}
        assert await ann.ask(action="second") == {"said": 1}
        assert len([each for each in lab.record.reports if each.init_ms is not None]) == starts + 1


async def test_a_syntax_error_in_new_code_is_told_and_mended(lab: Lab) -> None:
    """The message fails and the log says where; the code that is right again answers."""
    before, lines = lab.told, len(lab.record.lines)
    lab.sketch.code("Second", "def handler(event, context:\n")
    await lab.tells("Second start anew", before)
    async with client(lab.stack.url) as ann:
        assert (await ann.ask(action="second"))["message"] == "Internal server error"
        assert any(
            'app.py", line 1' in line.text or "'(' was never closed" in line.text for line in lab.record.lines[lines:]
        )
        before = lab.told
        lab.write_code("Second", "'mended'")
        await lab.tells("Second start anew", before)
        assert await ann.ask(action="second") == {"said": "mended"}


async def test_a_layer_that_changes_is_new_for_its_functions(lab: Lab) -> None:
    """It is one of the folders that a function is made of."""
    assert await lab.said("layered") == "one"
    before = lab.told
    lab.sketch.code("Layer", "WORD = 'two'\n", "python/shared.py")
    assert await lab.tells("changed", before) == "shared.py changed: Layered start anew"
    assert await lab.said("layered") == "two"


async def test_a_folder_that_is_built_anew_is_followed(lab: Lab) -> None:
    """A build that throws the folder away and makes a new one, and what is written there afterwards."""
    folder = lab.sketch.folder / "first"
    before = lab.told
    shutil.rmtree(folder)
    lab.write_code("First", "'built'")
    await lab.tells("First start anew", before)
    async with asyncio.timeout(20):
        while (await lab.said("first")) != "built":
            pass  # it may have been seen while it was not there
    before = lab.told
    lab.write_code("First", "'again'")
    await lab.tells("First start anew", before)
    assert await lab.said("first") == "again"


async def test_a_new_variable_is_there_after_the_template_changes(lab: Lab) -> None:
    """Only the function that has it starts anew."""
    starts = len([each for each in lab.record.reports if each.init_ms is not None])
    await lab.said("layered")
    before = lab.told
    lab.write_code("Second", "os.environ.get('WORD')")
    await lab.tells("Second start anew", before)
    assert await lab.said("second") is None
    before = lab.told
    lab.sketch.function("Second", Variables={"WORD": "hello"}).write()
    await lab.tells("template.json changed: the stack is as it says now", before)
    starts = len([each for each in lab.record.reports if each.init_ms is not None])
    assert await lab.said("second") == "hello"
    assert await lab.said("layered") == "two"
    assert len([each for each in lab.record.reports if each.init_ms is not None]) == starts + 1


async def test_a_new_function_route_and_table_are_there_after_the_template_changes(lab: Lab) -> None:
    """Connections that were there before can call the new route; a route that is taken away is forbidden."""
    async with client(lab.stack.url) as ann:
        before = lab.told
        tables = """[
            each for each in __import__('boto3').client('dynamodb').list_tables()['TableNames'] if 'New' in each
        ]"""
        lab.sketch.function("Third", SAYS.format(what=tables)).route("Chat", "third", "Third")
        lab.sketch.resources["NewTable"] = {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
            },
        }
        for part in ("Integration", "Route", "Response"):
            del lab.sketch.resources[f"ChatDefault{part}"]
        lab.sketch.write()
        await lab.tells("the stack is as it says now", before)
        assert await ann.ask(action="third") == {"said": ["demo-NewTable"]}
        assert (await ann.ask(action="dance"))["message"] == "Forbidden"
    before = lab.told
    del lab.sketch.resources["Third"]
    for part in ("Integration", "Route", "Response"):
        del lab.sketch.resources[f"ChatThird{part}"]
    lab.sketch.write()
    await lab.tells("the stack is as it says now", before)
    async with client(lab.stack.url) as ann:
        assert (await ann.ask(action="third"))["message"] == "Forbidden"


@pytest.mark.parametrize("wrong", ['{"Resources": {', '{"Resources": {"F": {"Type": "AWS::Lambda::Function"}}}', ""])
async def test_a_template_that_became_invalid_has_no_effect(lab: Lab, wrong: str) -> None:
    """That is told with what is wrong; the stack goes on as it was, and takes the next template that is right."""
    right = lab.sketch.path.read_text()
    before = lab.told
    lab.sketch.path.write_text(wrong)
    told = await lab.tells("stays without effect", before)
    assert "template.json" in told
    assert await lab.said("layered") == "two"
    before = lab.told
    lab.sketch.path.write_text(right)
    await lab.tells("the stack is as it says now", before)


async def test_a_template_that_is_gone_for_a_moment_is_no_matter(lab: Lab) -> None:
    """It is told, and taken again once it is back."""
    aside = lab.sketch.path.with_suffix(".aside")
    before = lab.told
    lab.sketch.path.rename(aside)
    await lab.tells("stays without effect", before)
    before = lab.told
    aside.rename(lab.sketch.path)
    await lab.tells("the stack is as it says now", before)
    assert await lab.said("layered") == "two"


async def test_a_resource_that_cannot_be_made_has_no_effect(lab: Lab) -> None:
    """It is named, and the stack goes on as it was."""
    lab.sketch.resources["Bad"] = {"Type": "AWS::DynamoDB::Table", "Properties": {"KeySchema": []}}
    before = lab.told
    lab.sketch.write()
    told = await lab.tells("stays without effect", before)
    assert "Bad: AWS::DynamoDB::Table" in told
    assert await lab.said("layered") == "two"
    del lab.sketch.resources["Bad"]
    before = lab.told
    lab.sketch.write()
    await lab.tells("the stack is as it says now", before)


async def test_what_cannot_change_while_it_runs_needs_a_new_start(lab: Lab) -> None:
    """Another API would need a port of its own; that is said, and the stack goes on as it was."""
    before = lab.told
    lab.sketch.api("Other", default="First").write()
    told = await lab.tells("stays without effect", before)
    assert "that needs a new start" in told
    assert len(lab.stack.apis) == 1
    assert await lab.said("layered") == "two"
    for name in [each for each in lab.sketch.resources if each.startswith("Other")]:
        del lab.sketch.resources[name]
    before = lab.told
    lab.sketch.write()
    await lab.tells("the stack is as it says now", before)


async def test_what_a_new_template_has_and_we_have_not_is_named(lab: Lab) -> None:
    """Once: it is not told again with the next change."""
    lab.sketch.resources["Search"] = {"Type": "AWS::OpenSearchService::Domain", "Properties": {}}
    before = lab.told
    lab.sketch.write()
    await lab.tells("the stack is as it says now", before)
    assert [each for each in lab.record.said[before:] if each.startswith("not here: Search (AWS::OpenSearch")]
    before = lab.told
    lab.sketch.resources["First"]["Properties"]["Timeout"] = 11
    lab.sketch.write()
    await lab.tells("the stack is as it says now", before)
    assert not [each for each in lab.record.said[before:] if each.startswith("not here")]


async def test_once_follows_nothing(tmp_path: Path) -> None:
    """With `--once` a new code has no effect, and nothing looks at files."""
    sketch = Sketch(tmp_path / "demo").function("First", SAYS.format(what="1")).api("Chat", default="First")
    async with hubbub_local(tmp_path / "run", str(sketch.write()), "--port", "0", "--once") as local:
        url = await local.ready()
        async with client(url) as ann:
            assert await ann.ask() == {"said": 1}
            sketch.code("First", SAYS.format(what="2"))
            assert await ann.ask() == {"said": 1}
        files = psutil.Process(local.process.pid)
        assert "inotify" not in " ".join(str(Path(f"/proc/{files.pid}/fd/{fd}").readlink()) for fd in _open(files.pid))
        local.process.terminate()
        assert await local.ended() == 0
        assert "changed" not in local.said
    assert not is_running(files.pid)


def _open(pid: int) -> list[str]:
    """The file descriptors that a process has open."""
    return [each.name for each in Path(f"/proc/{pid}/fd").iterdir() if each.exists()]


async def test_a_follower_sees_a_change_that_is_made_at_once(tmp_path: Path) -> None:
    """From the moment that it is entered nothing is missed, in folders that come to be as well."""
    folder, later, file = tmp_path / "now", tmp_path / "later", tmp_path / "files" / "template.yaml"
    for each in (folder, file.parent):
        each.mkdir()
    seen: set[Path] = set()

    async def changed(paths: set[Path]) -> None:
        seen.update(paths)

    places = Places(frozenset({folder, later}), frozenset({file}))
    async with Follower(lambda: places, changed):
        (folder / "a").touch()
        file.with_name("b").touch()
        file.touch()
        await until(lambda: {folder / "a", file} <= seen, "both")
        later.mkdir()
        await until(lambda: later in seen, "the new folder")
        async with asyncio.timeout(20):
            while later / "c" not in seen:
                (later / "c").write_text("x")
                await asyncio.sleep(0.05)
    assert file.with_name("b") not in seen


async def test_what_a_follower_is_for_may_fail(tmp_path: Path) -> None:
    """What is raised while a change is dealt with is what `failed` raises."""

    async def changed(paths: set[Path]) -> None:
        raise LookupError("no")

    places = Places(frozenset({tmp_path}), frozenset())
    async with Follower(lambda: places, changed) as follower:
        (tmp_path / "a").touch()
        with pytest.raises(LookupError, match="no"):
            async with asyncio.timeout(20):
                await follower.failed()
