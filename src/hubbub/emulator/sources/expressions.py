"""When a schedule's expression fires: `rate(5 minutes)`, `cron(0 12 * * ? *)`, `at(2026-01-02T03:04:05)`.

Source: docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html and
docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_UNITS_S = {"minute": 60, "hour": 3_600, "day": 86_400}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_YEARS = (1970, 2199)


class ExpressionInvalid(ValueError):
    """An expression is none of EventBridge's; the message says what was expected."""


class Timing(Protocol):
    """The times at which an expression fires."""

    def following(self, after: float) -> float | None:
        """The first time after a time, both epoch seconds; None where there is none any more."""
        ...


def parse_expression(
    expression: str, *, created_at: float, first_at: float | None = None, timezone: str = "UTC"
) -> Timing:
    """The times of an expression.

    Args:
        expression: `rate(…)`, `cron(…)`, or `at(…)`, which EventBridge Scheduler has.
        created_at: when the schedule was made, epoch seconds.
        first_at: the first time of a rate; None for a period after its making.
        timezone: what `cron` and `at` are in: an IANA name.

    Raises:
        ExpressionInvalid: it is none of these.

    """
    found = re.fullmatch(r"\s*(rate|cron|at)\((.*)\)\s*", expression)
    if found is None:
        raise ExpressionInvalid(f"expected rate(…), cron(…) or at(…) as a schedule, got {expression!r}")
    kind, inner = found.groups()
    if kind == "rate":
        period_s = _period_s(inner, expression)
        return _Rate(period_s, created_at + period_s if first_at is None else first_at)
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ExpressionInvalid(f"expected the name of a time zone, got {timezone!r}") from None
    if kind == "cron":
        return _parse_cron(inner, expression, zone)
    try:
        return _Once(datetime.strptime(inner.strip(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone).timestamp())
    except ValueError:
        raise ExpressionInvalid(f"expected at(yyyy-mm-ddThh:mm:ss), got {expression!r}") from None


class _Once(NamedTuple):
    """A single time."""

    at: float

    def following(self, after: float) -> float | None:
        return self.at if self.at > after else None


class _Rate(NamedTuple):
    """Every so often from a first time on."""

    period_s: int
    first_at: float

    def following(self, after: float) -> float | None:
        if after < self.first_at:
            return self.first_at
        return self.first_at + (int((after - self.first_at) // self.period_s) + 1) * self.period_s


def _period_s(inner: str, expression: str) -> int:
    found = re.fullmatch(r"\s*([0-9]{1,9})\s+(minute|hour|day)(s?)\s*", inner)
    if found is None or int(found[1]) < 1:
        raise ExpressionInvalid(f"expected rate(N minutes), hours or days, N from 1 on, got {expression!r}")
    if (int(found[1]) == 1) == bool(found[3]):
        raise ExpressionInvalid(f"a rate of 1 has its unit in the singular, others in the plural, got {expression!r}")
    return int(found[1]) * _UNITS_S[found[2]]


class _DayOfMonth(NamedTuple):
    """Which days of a month: plain ones, the last, the last weekday, the weekday nearest to one."""

    days: frozenset[int]
    last: bool = False
    last_weekday: bool = False
    near: int | None = None

    def has(self, day: date) -> bool:
        length = calendar.monthrange(day.year, day.month)[1]
        if self.last:
            return day.day == length
        if self.last_weekday:
            return day.day == _nearest_weekday(day.replace(day=length))
        if self.near is not None:
            return self.near <= length and day.day == _nearest_weekday(day.replace(day=self.near))
        return day.day in self.days


class _DayOfWeek(NamedTuple):
    """Which days of a week, 1 for Sunday: plain ones, or one in the month's `nth` week, -1 for its last."""

    days: frozenset[int]
    nth: int | None = None

    def has(self, day: date) -> bool:
        if day.isoweekday() % 7 + 1 not in self.days:
            return False
        if self.nth == -1:
            return day.day + 7 > calendar.monthrange(day.year, day.month)[1]
        return self.nth is None or (day.day - 1) // 7 + 1 == self.nth


class _Cron(NamedTuple):
    """Six fields, in a time zone."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day: _DayOfMonth | _DayOfWeek
    months: frozenset[int]
    years: frozenset[int]
    zone: ZoneInfo

    def following(self, after: float) -> float | None:
        day = datetime.fromtimestamp(after, self.zone).date()
        last = max(self.years)
        while day.year <= last:
            if day.year not in self.years:
                day = date(day.year + 1, 1, 1)
            elif day.month not in self.months:
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            else:
                if self.day.has(day) and (at := self._first_of(day, after)) is not None:
                    return at
                day += timedelta(days=1)
        return None

    def _first_of(self, day: date, after: float) -> float | None:
        """The first time on a day that is after another."""
        for hour in self.hours:
            for minute in self.minutes:
                local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                at = local.timestamp()
                if at > after and datetime.fromtimestamp(at, self.zone).hour == hour:  # else the clocks leap over it
                    return at
        return None


def _parse_cron(inner: str, expression: str, zone: ZoneInfo) -> _Cron:
    fields = inner.upper().split()
    if len(fields) != 6:
        raise ExpressionInvalid(f"cron takes six fields, minutes to year, got {len(fields)}: {expression!r}")
    minutes, hours, day_of_month, months, day_of_week, years = fields
    if (day_of_month == "?") == (day_of_week == "?"):
        raise ExpressionInvalid(f"cron takes ? as day of the month or of the week, and not as both: {expression!r}")
    try:
        return _Cron(
            tuple(sorted(_values(minutes, 0, 59))),
            tuple(sorted(_values(hours, 0, 23))),
            _parse_day_of_week(day_of_week) if day_of_month == "?" else _parse_day_of_month(day_of_month),
            _values(months, 1, 12, _MONTHS),
            _values(years, *_YEARS),
            zone,
        )
    except ExpressionInvalid as error:
        raise ExpressionInvalid(f"{error}, in {expression!r}") from None


def _parse_day_of_month(field: str) -> _DayOfMonth:
    if field == "L":
        return _DayOfMonth(frozenset(), last=True)
    if field == "LW":
        return _DayOfMonth(frozenset(), last_weekday=True)
    if near := re.fullmatch(r"([0-9]{1,2})W", field):
        return _DayOfMonth(frozenset(), near=_value(near[1], 1, 31))
    return _DayOfMonth(_values(field, 1, 31))


def _parse_day_of_week(field: str) -> _DayOfWeek:
    if field == "L":
        return _DayOfWeek(frozenset({7}))
    if last := re.fullmatch(r"(\w+?)L", field):
        return _DayOfWeek(frozenset({_value(last[1], 1, 7, _DAYS)}), nth=-1)
    if nth := re.fullmatch(r"(\w+)#([1-5])", field):
        return _DayOfWeek(frozenset({_value(nth[1], 1, 7, _DAYS)}), nth=int(nth[2]))
    return _DayOfWeek(_values(field, 1, 7, _DAYS))


def _values(field: str, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    """The values of a field: lists of values, ranges and steps."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _value(first, low, high, names)
            end = _value(last, low, high, names) if dash else high if slash else start
        spanned = range(start, end + 1) if start <= end else [*range(start, high + 1), *range(low, end + 1)]
        found.update(spanned[:: _value(step, 1, high) if slash else 1])
    return frozenset(found)


def _value(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> int:
    if text in names:
        return names.index(text) + low
    if re.fullmatch(r"[0-9]{1,4}", text) and low <= int(text) <= high:
        return int(text)
    words = f" or {names[0]}-{names[-1]}" if names else ""
    raise ExpressionInvalid(f"cron takes {low} to {high}{words} here, got {text!r}")


def _nearest_weekday(day: date) -> int:
    """The day of the month that is the weekday nearest to a day and in the same month."""
    length = calendar.monthrange(day.year, day.month)[1]
    weekday = day.weekday()
    if weekday == 5:
        return day.day - 1 if day.day > 1 else day.day + 2
    if weekday == 6:
        return day.day + 1 if day.day < length else day.day - 2
    return day.day
