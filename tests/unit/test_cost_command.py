"""`hubbub cost` as one types it, and the page that shows what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from documents import generator
from hubbub.cli import app
from hubbub.cost.catalogue import HERE
from hubbub.cost.scenario import SHAPES

docs = generator()


def run(*arguments: str, status: int = 0) -> str:
    """What the command prints, or says on standard error if it ends with another status than 0."""
    ran = CliRunner().invoke(app, ["cost", *arguments])
    assert ran.exit_code == status, ran.output
    return ran.stdout if status == 0 else ran.stderr


def test_the_three_homes_are_compared() -> None:
    """Line by line, with the sum, the quotas of each, broadcasts, and what was not verified."""
    said = run()
    for words in (*SHAPES, "API Gateway: posts of entries", "together", "the first to break first", "100,000"):
        assert words in said
    assert "free tier not counted" in said
    assert "not verified: instance_vcpus" in said


def test_one_home_is_shown_with_quantities() -> None:
    """With `--shape` there is its own bill alone, and its own quotas."""
    said = run("--shape", "mix", "--preset", "community")
    assert "quantity" in said
    assert "Quotas, mix" in said
    assert "Quotas, serverless" not in said
    assert "API Gateway" not in said


def test_one_part_is_shown_alone() -> None:
    """With `--part` there is the bill, the quotas or the broadcasts, and the names of what was not verified."""
    said = {part: run("--part", part) for part in ("bill", "quotas", "broadcasts")}
    for part, words in (("bill", "together"), ("quotas", "headroom"), ("broadcasts", "paced")):
        assert [each for each in said if words in said[each]] == [part]
    assert all("not verified: schedule_invocation, instance_vcpus" in each for each in said.values())


def test_json_has_all_of_it() -> None:
    """One document: inputs, bills with quantities, quotas with headroom, broadcasts, and what was not verified."""
    found = json.loads(run("--json", "--preset", "stream", "--messages-per-hour", "900"))
    assert found["inputs"]["messages_per_hour"] == 900
    assert found["shapes"].keys() == SHAPES.keys()
    serverless = found["shapes"]["serverless"]
    assert serverless["usd_a_month"] == pytest.approx(sum(item["usd"] for item in serverless["items"]), abs=0.2)
    assert serverless["quotas"][0]["what"] == "requests_per_s"
    assert [each["listeners"] for each in found["broadcasts"]] == [1_000, 10_000, 100_000]
    assert found["unverified"].keys() == {"schedule_invocation", "instance_vcpus"}


def test_an_unused_quota_has_no_headroom_in_json() -> None:
    """Infinity is no JSON: where nothing is used, headroom is null."""
    found = json.loads(run("--json", "--online", "0", "--messages-per-hour", "0", "--reactions", "0"))
    quotas = {each["what"]: each for each in found["shapes"]["serverless"]["quotas"]}
    assert quotas["room_appends_per_s"]["headroom"] is None
    assert "unused" in run("--online", "0", "--messages-per-hour", "0")


def test_a_sweep_shows_where_the_cheapest_changes() -> None:
    """A row for each value, and a sentence for each crossing; the same as JSON."""
    said = run("--sweep", "members=10,10000")
    assert "is cheaper than serverless" in said
    found = json.loads(run("--sweep", "members=10,10000", "--json"))
    assert [each["value"] for each in found["points"]] == [10, 10_000]
    assert found["crossings"][0]["before"] == "serverless"


def test_my_own_prices_are_reckoned_with(tmp_path: Path) -> None:
    """A file with other prices, another region, other work."""
    mine = tmp_path / "mine.toml"
    text = (HERE / "prices.toml").read_text("utf-8").replace("us-east-1", "eu-nowhere-1")
    mine.write_text(text.replace("usd = 0.0725", "usd = 7.25"), "utf-8")
    found = json.loads(run("--prices", str(mine), "--region", "eu-nowhere-1", "--json"))
    assert found["region"] == "eu-nowhere-1"
    items = {item["what"]: item["usd"] for item in found["shapes"]["instances"]["items"]}
    assert items["Gateway: instances"] == 10_585.0
    assert run("--work", str(HERE / "work.toml")) == run()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--members", "-5"], "hubbub: members: expected a whole number from 1 to 10,000,000, got '-5'"),
        (["--preset", "x"], "hubbub: preset: expected one of team, community, stream, got 'x'"),
        (["--shape", "x"], "hubbub: shape: expected one of serverless, instances, mix, got 'x'"),
        (["--part", "x"], "hubbub: part: expected one of bill, quotas, broadcasts, got 'x'"),
        (
            ["--region", "mars-1"],
            "hubbub: region: expected one of us-east-1, of which prices.toml has prices, got 'mars-1'",
        ),
        (["--sweep", "x"], "hubbub: sweep: expected NAME=VALUE,VALUE,… such as members=10,100,1000, got 'x'"),
        (
            ["--sweep", "rooms=1", "--shape", "mix"],
            "hubbub: sweep: expected no --shape or --part beside it, since it compares all homes",
        ),
        (["--prices", "none.toml"], "hubbub: none.toml: No such file or directory"),
    ],
)
def test_bad_flags_are_refused_with_what_was_expected(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, with status 2, and nothing else is printed."""
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, status=2).strip() == message


# The page, which `python scripts/docs.py` renews and tests/meta/test_docs.py holds to what the command prints


def test_the_page_has_examples() -> None:
    """It shows each preset, each part, and sweeps."""
    shown = " ".join(found[1] for found in docs.SHOWN.finditer(docs.COST.read_text("utf-8")))
    for words in ("--preset community", "--preset stream", "--part broadcasts", "--part quotas", "--sweep members="):
        assert words in shown


def test_a_command_in_the_page_that_fails_is_noticed() -> None:
    """The generator says which command it is, and why it fails."""
    with pytest.raises(ValueError, match="hubbub cost --members 0: hubbub: members: expected"):
        docs.with_output("```console\n$ hubbub cost --members 0\n…\n```\n")
