"""Slots: the moments of a schedule, by a cron line in a time zone, or so many milliseconds apart.

Pure arithmetic, in seconds since the epoch. Surprise: at the change to summer time, a slot that the clock leaps over comes right after the
leap; at the change back, a slot of a fixed hour comes once and one of every few minutes twice, as Debian's cron has it.
"""
import itertools
import math
import os
import time
import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

import cronsim

from plugins.fields import wrong

MOST = 2_000  # slots of a cron line that are counted at once, which takes the writer 30 ms; beyond it, the number is too small


class Slots:
    """When a schedule is due. `every` in ms counts from `start`; a cron line has no slot before it. Invalid."""

    def __init__(self, cron: str | None, every: int | None, tz: str, start: float):
        self.cron, self.every, self.start = cron, every, start
        try:
            self.zone = zoneinfo.ZoneInfo(tz)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise wrong("tz", f"{tz[:60]!r} is no time zone; write for example Europe/Berlin or UTC") from None

    def after(self, moment: float) -> Iterator[float]:
        """The slots that come after a moment, for ever."""
        if self.every:
            step = self.every / 1000
            number = max(0, int((moment - self.start) // step) + 1) if moment >= self.start else 0
            while True:
                yield self.start + number * step
                number += 1
        begin = datetime.fromtimestamp(max(moment, self.start - 1), self.zone)
        for slot in cronsim.CronSim(self.cron or "", begin):
            yield slot.timestamp()

    def next(self, moment: float) -> float | None:
        """The first slot after a moment; None where there never is one."""
        return next(self.after(moment), None)

    def earlier(self, moment: float) -> float:
        """A start before a moment, from which the same slots follow."""
        return self.start - math.ceil((self.start - moment) * 1000 / self.every) * self.every / 1000 if self.every else moment

    def between(self, first: float, last: float) -> int:
        """How many slots lie after `first` and not after `last`."""
        if self.every:
            low, high = (max(-1, int((moment - self.start) * 1000 // self.every)) for moment in (first, last))
            return max(0, high - low)
        return sum(1 for _ in itertools.takewhile(lambda slot: slot <= last, itertools.islice(self.after(first), MOST)))

    def latest(self, first: float, last: float) -> float | None:
        """The last slot after `first` and not after `last`, which are no more than some minutes apart."""
        found = None
        for found in itertools.takewhile(lambda slot: slot <= last, self.after(first)):  # noqa: B007  # what is left of it is the answer
            pass
        return found


def checked(cron: str | None, every: int | None, tz: str, start: float, *, field: str = "repeat") -> Slots:
    """The slots of a schedule that somebody asks for. Invalid names the field that is wrong; `field` is the cron line's."""
    if (cron is None) == (every is None):
        raise wrong(field, f"Give one of `{field}`, a cron line, and `every`, in milliseconds")
    slots = Slots(cron, every, tz, start)
    try:
        first = slots.next(start)
    except cronsim.CronSimError as error:
        raise wrong(field, f"{(cron or '')[:60]!r} is no cron line of 5 or 6 fields ({error}); write for example '0 8 * * 1-5'") from None
    if first is None:
        raise wrong(field, f"{(cron or '')[:60]!r} never comes")
    return slots


def here() -> str:
    """The name of this machine's time zone; UTC where it has none that is known by name. Looked at anew after some seconds: a Mac travels."""
    return _here(os.environ.get("TZ", ""), int(time.monotonic()) >> 3)


@lru_cache(maxsize=1)
def _here(named: str, moment: int) -> str:
    place = os.path.realpath("/etc/localtime")
    name = named.removeprefix(":") or (place.rpartition("zoneinfo/")[2] if "zoneinfo/" in place else "")
    try:
        return zoneinfo.ZoneInfo(name).key if name else "UTC"  # to ask for the list of all zones takes 50 ms
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"
