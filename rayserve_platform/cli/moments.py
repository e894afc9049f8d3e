"""Times on the command line."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Span(click.ParamType[timedelta]):
    """A length of time: a number and a unit, `90d`, or `0`."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
        if value != "0" and found is None:
            self.fail(f"'{value}' is no length of time; write 30m, 12h, 90d or 0", param, ctx)
        return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta(0)


class Moment(click.ParamType[datetime]):
    """A moment: a date, a date and time (UTC unless it says otherwise), or a span from now."""

    name = "moment"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        if re.fullmatch(r"\d{1,6}[smhdw]", value):
            return datetime.now(UTC).replace(microsecond=0) + Span().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is no moment; write 2027-01-31, 2027-01-31T12:00Z or 90d", param)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
