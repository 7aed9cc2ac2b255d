"""What the model is fed with: dated prices with a source, the project's own work, and what bad input is told."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest

from hubbub.cost.catalogue import HERE, Price, read_prices, read_work
from hubbub.cost.scenario import INPUTS, PRESETS, CostError, Scenario, checked, scenario, swept

PRICES = (HERE / "prices.toml").read_text("utf-8")
WORK = (HERE / "work.toml").read_text("utf-8")
INPUTS_OF_AWS = [
    (f"{region}.{name}", each) for region, inputs in read_prices().items() for name, each in inputs.inputs().items()
]


@pytest.mark.parametrize("name, each", INPUTS_OF_AWS)
def test_prices_and_quotas_have_a_day_a_source_and_how_they_were_read(name: str, each: Price) -> None:
    """Each names a day that has come, a page of AWS, and what was read; what was not read says why it is believed."""
    assert datetime.date(2024, 1, 1) <= each.date <= datetime.date(2026, 12, 31), name
    assert each.source.startswith(("https://aws.amazon.com/", "https://docs.aws.amazon.com/", "https://repost.aws/")), (
        name
    )
    assert len(each.how) > 5
    assert each.unit
    assert each.verified or each.reason


def test_there_is_no_price_below_zero_and_tiers_fall() -> None:
    """Prices are 0 or more; a tier costs less than the one before, and ends later."""
    for name, each in INPUTS_OF_AWS:
        if isinstance(each, Price) and each.tiers:
            ends = [tier.up_to for tier in each.tiers]
            assert ends[-1] is None, name
            assert ends[:-1] == sorted(end for end in ends if end is not None), name
            assert [tier.usd for tier in each.tiers] == sorted((tier.usd for tier in each.tiers), reverse=True), name
        elif isinstance(each, Price):
            assert each.usd is not None and each.usd >= 0, name


def test_what_hubbub_does_says_where_it_comes_from() -> None:
    """Each section of `work.toml` says whether it was measured, and by which command, or where else it is from."""
    work = read_work()
    sections = [getattr(work, name) for name in work.__struct_fields__ if name != "actions"]
    sections += [getattr(work.actions, name) for name in work.actions.__struct_fields__]
    for section in sections:
        assert section.source.startswith(("design", "deploy/sam/template.yaml", "measured: ")), section


# Bad files


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "usd = 0.25\nper = 1_000_000",
            "usd = 'a quarter'\nper = 1_000_000",
            r"us-east-1: Expected `float .*apigateway_minute",
        ),
        ("[us-east-1.price.apigateway_minute]", "[us-east-1.price.minute]", r"unknown field `minute`"),
        ("source = ", "source = 7 # ", r"Expected `str`, got `int`"),
        ("usd = 0.25\nper = 1_000_000", "per = 1_000_000", r"apigateway_minute: expected either usd or tiers"),
        ("usd = 0.25\nper = 1_000_000", "usd = 0.25\nper = 0", r"expected per above 0, got 0"),
        ('reason = "', 'note = "', r"unknown field `note`"),
        ("usd = 0.25\n", "usd = \n", r"Invalid value"),
    ],
)
def test_a_file_of_prices_that_is_wrong_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Whoever brings his own prices is told what is wrong with them, and in which file."""
    mine = tmp_path / "mine.toml"
    assert old in PRICES
    mine.write_text(PRICES.replace(old, new, 1), "utf-8")
    with pytest.raises(CostError, match=message) as caught:
        read_prices(mine)
    assert str(caught.value).startswith("mine.toml: ")


def test_a_price_that_is_missing_is_named(tmp_path: Path) -> None:
    """A region needs all prices."""
    mine = tmp_path / "mine.toml"
    start, end = PRICES.index("[us-east-1.price.nlb_hour]"), PRICES.index("[us-east-1.price.nlb_unit_hour]")
    mine.write_text(PRICES[:start] + PRICES[end:], "utf-8")
    with pytest.raises(CostError, match=r"mine\.toml: us-east-1: Object missing required field `nlb_hour`"):
        read_prices(mine)


def test_what_is_not_verified_needs_a_reason(tmp_path: Path) -> None:
    """An unverified number without a reason is refused."""
    mine = tmp_path / "mine.toml"
    mine.write_text(PRICES.replace('reason = "no page', '# "no page', 1), "utf-8")
    with pytest.raises(CostError, match="schedule_invocation: expected a reason, since it is not verified"):
        read_prices(mine)


def test_another_region_stands_beside_the_first(tmp_path: Path) -> None:
    """A file may have several regions."""
    mine = tmp_path / "mine.toml"
    mine.write_text(PRICES + "\n" + PRICES.replace("[us-east-1.", "[eu-central-1."), "utf-8")
    assert list(read_prices(mine)) == ["us-east-1", "eu-central-1"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """So is one that is no text."""
    with pytest.raises(CostError, match=r"none\.toml: No such file"):
        read_prices(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CostError, match=r"binary\.toml: "):
        read_work(tmp_path / "binary.toml")


def test_work_that_is_missing_is_named(tmp_path: Path) -> None:
    """`work.toml` needs all figures, too."""
    mine = tmp_path / "work.toml"
    mine.write_text(WORK.replace("\nms_per_post", "\nms_a_post", 1), "utf-8")
    with pytest.raises(CostError, match=r"work\.toml: Object contains unknown field `ms_a_post`"):
        read_work(mine)


# Bad chats


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("members", "0", "members: expected a whole number from 1 to 10,000,000, got '0'"),
        ("members", "2.5", "members: expected a whole number from 1 to 10,000,000, got '2.5'"),
        ("members", "many", "members: expected a whole number from 1 to 10,000,000, got 'many'"),
        ("online", "1.5", "online: expected a number from 0 to 1, got '1.5'"),
        ("online", "nan", "online: expected a number from 0 to 1, got 'nan'"),
        ("messages_per_s", "inf", "messages-per-s: expected a number from 0 to 1,000,000, got 'inf'"),
        ("connected_hours", "25", "connected-hours: expected a number from 0 to 24, got '25'"),
        ("active_hours", "0", "active-hours: expected a number from 0.01 to 24, got '0'"),
        ("transport", "kafka", "transport: expected one of lambda, sqs, fifo, got 'kafka'"),
    ],
)
def test_an_impossible_input_says_what_was_expected(name: str, value: str, message: str) -> None:
    """Of which kind, between which bounds, and what came."""
    with pytest.raises(CostError) as caught:
        scenario("team", {name: value})
    assert str(caught.value) == message


def test_an_unknown_input_or_preset_is_named() -> None:
    """With those that there are."""
    with pytest.raises(CostError, match="weather: expected one of rooms, members"):
        checked("weather", 1)
    with pytest.raises(CostError, match="preset: expected one of team, community, stream, got 'enterprise'"):
        scenario("enterprise")


@pytest.mark.parametrize(
    "text, message",
    [
        ("members", "sweep: expected NAME=VALUE,VALUE,… such as members=10,100,1000, got 'members'"),
        ("members=", "sweep: expected NAME=VALUE,VALUE,… such as members=10,100,1000, got 'members='"),
        ("members=10,,20", "members: expected a whole number from 1 to 10,000,000, got ''"),
    ],
)
def test_a_sweep_that_is_wrong_says_what_was_expected(text: str, message: str) -> None:
    """And what came."""
    with pytest.raises(CostError) as caught:
        swept(text)
    assert str(caught.value) == message


def test_a_sweep_is_an_input_and_its_values() -> None:
    """Spelled as a flag or as a setting."""
    assert swept("members=10, 100") == ("members", [10, 100])
    assert swept("messages-per-hour=0.5,20") == swept("messages_per_hour=0.5,20") == ("messages_per_hour", [0.5, 20.0])
    with pytest.raises(CostError, match=r"sweep: expected one of rooms, .* before the =, got 'weather'"):
        swept("weather=1")


def test_every_input_is_explained_and_every_preset_possible() -> None:
    """The inputs are the fields of a chat, and their defaults and presets are within bounds."""
    assert tuple(INPUTS) == Scenario.__struct_fields__
    for preset in PRESETS:
        for name, value in msgspec.structs.asdict(scenario(preset)).items():
            assert checked(name, value) == value, name
