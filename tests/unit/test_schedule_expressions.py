"""When schedules fire: the expressions of EventBridge, held against dates looked up in a calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hubbub.emulator.sources.expressions import ExpressionInvalid, parse_expression


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def times(expression: str, start: str, count: int, timezone: str = "UTC") -> list[str]:
    """The next times after one, as they are in UTC."""
    timing = parse_expression(expression, created_at=epoch(start), timezone=timezone)
    found: list[str] = []
    after = epoch(start)
    while len(found) < count and (at := timing.following(after)) is not None:
        found.append(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M"))
        after = at
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(1 minute)", ["2026-01-30 23:31", "2026-01-30 23:32"]),
        ("rate(5 minutes)", ["2026-01-30 23:35", "2026-01-30 23:40"]),
        ("rate(1 hour)", ["2026-01-31 00:30", "2026-01-31 01:30"]),
        ("rate(2 days)", ["2026-02-01 23:30", "2026-02-03 23:30"]),
        ("cron(0 12 * * ? *)", ["2026-01-31 12:00", "2026-02-01 12:00"]),
        ("cron(0/15 * * * ? *)", ["2026-01-30 23:45", "2026-01-31 00:00"]),
        ("cron(*/20 8-9 * * ? *)", ["2026-01-31 08:00", "2026-01-31 08:20", "2026-01-31 08:40", "2026-01-31 09:00"]),
        ("cron(0 8 1 * ? *)", ["2026-02-01 08:00", "2026-03-01 08:00"]),
        ("cron(0 8 L * ? *)", ["2026-01-31 08:00", "2026-02-28 08:00"]),
        ("cron(0 8 LW * ? *)", ["2026-02-27 08:00", "2026-03-31 08:00"]),
        ("cron(0 8 15W * ? *)", ["2026-02-16 08:00", "2026-03-16 08:00", "2026-04-15 08:00"]),
        ("cron(0 8 1W * ? *)", ["2026-02-02 08:00", "2026-03-02 08:00"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-02-02 18:00", "2026-02-03 18:00"]),
        ("cron(0 18 ? * 2,SAT *)", ["2026-01-31 18:00", "2026-02-02 18:00"]),
        ("cron(0 18 ? * FRI-SUN *)", ["2026-01-31 18:00", "2026-02-01 18:00", "2026-02-06 18:00"]),
        ("cron(0 18 ? * 6L *)", ["2026-02-27 18:00", "2026-03-27 18:00"]),
        ("cron(0 18 ? * 3#2 *)", ["2026-02-10 18:00", "2026-03-10 18:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ("cron(0 0 1 1,JUL ? 2026-2027)", ["2026-07-01 00:00", "2027-01-01 00:00", "2027-07-01 00:00"]),
        ("at(2026-03-01T00:00:00)", ["2026-03-01 00:00"]),
        ("at(2025-03-01T00:00:00)", []),
    ],
)
def test_an_expression_fires_when_the_calendar_says_so(expression: str, expected: list[str]) -> None:
    """Each form of expression fires at the times that it has on a calendar, and no other in between."""
    count = len(expected) if not expression.startswith("at") else 5
    assert times(expression, "2026-01-30 23:30", count) == expected


def test_a_cron_whose_years_are_over_never_fires() -> None:
    """There is an end to looking for a time that does not come."""
    assert times("cron(0 0 1 1 ? 2020)", "2026-01-01 00:00", 1) == []
    assert times("cron(0 0 31 2 ? *)", "2026-01-01 00:00", 1) == []


def test_a_rate_counts_from_its_making_whatever_was_missed() -> None:
    """After a gap a rate goes on in its old beat."""
    timing = parse_expression("rate(10 minutes)", created_at=epoch("2026-01-01 00:03"))
    assert timing.following(epoch("2026-01-01 05:55")) == epoch("2026-01-01 06:03")


def test_a_time_zone_shifts_with_its_summer() -> None:
    """A time of day in a zone is that time on its clocks, and a time that they leap over does not come."""
    daily = times("cron(0 9 * * ? *)", "2026-03-28 00:00", 3, "Europe/Berlin")
    assert daily == ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]
    leapt = times("cron(30 2 * * ? *)", "2026-03-28 12:00", 2, "Europe/Berlin")
    assert leapt == ["2026-03-30 00:30", "2026-03-31 00:30"]
    assert times("at(2026-07-01T09:00:00)", "2026-01-01 00:00", 1, "Asia/Tokyo") == ["2026-07-01 00:00"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("every 5 minutes", "expected rate(…), cron(…) or at(…)"),
        ("rate(5 minute)", "in the plural"),
        ("rate(1 minutes)", "in the singular"),
        ("rate(0 minutes)", "N from 1 on"),
        ("rate(5 seconds)", "expected rate(N minutes)"),
        ("cron(0 12 * * *)", "six fields, minutes to year, got 5"),
        ("cron(0 12 * * * *)", "? as day of the month or of the week"),
        ("cron(0 12 ? * ? *)", "? as day of the month or of the week"),
        ("cron(60 12 * * ? *)", "0 to 59 here, got '60'"),
        ("cron(0 12 ? * MOO *)", "1 to 7 or SUN-SAT here, got 'MOO'"),
        ("cron(0 12 1 FOO ? *)", "1 to 12 or JAN-DEC"),
        ("cron(0/0 12 1 * ? *)", "got '0'"),
        ("at(tomorrow)", "at(yyyy-mm-ddThh:mm:ss)"),
    ],
)
def test_what_is_no_expression_is_refused_with_what_was_expected(expression: str, words: str) -> None:
    """An expression that EventBridge would refuse is refused, in words that say what it wants."""
    with pytest.raises(ExpressionInvalid) as refused:
        parse_expression(expression, created_at=0.0)
    assert words in str(refused.value)


def test_an_unknown_time_zone_is_refused() -> None:
    """A zone that nobody has heard of is named."""
    with pytest.raises(ExpressionInvalid, match="Mars/Base"):
        parse_expression("cron(0 12 * * ? *)", created_at=0.0, timezone="Mars/Base")
