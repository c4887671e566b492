"""Limits: how often somebody may do something, by the settings `limit_<bucket>`.

Kept in memory, exact under parallel calls, forgotten at a restart. Surprise: the table is bounded, whoever
calls; what goes first is over, and then the oldest.
"""
import re
import threading
import time

from orkosi import Invalid, TooMany, settings


class Limiter:
    """Fixed windows in memory; exact under parallel calls, forgotten at a restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def counted(self) -> int:
        """How many callers are counted at this moment."""
        return len(self._windows)

    def take(self, bucket: str, key: str) -> None:
        """Count one call of `key` against the setting `limit_<bucket>` ("300/minute" or "off"); TooMany beyond."""
        rule = getattr(settings, f"limit_{bucket}")
        if rule == "off":
            return
        allowed, width = parse_rate(rule)
        moment = time.monotonic()
        with self._lock:
            ends, used = self._windows.get((bucket, key), (0.0, 0))
            if ends <= moment:
                ends, used = moment + width, 0
            if used >= allowed:
                wait = int(ends - moment) + 1
                raise TooMany(f"At most {rule} here (limit_{bucket}); try again in {wait} s", headers={"Retry-After": str(wait)})
            if len(self._windows) >= 50_000:  # bounded, whoever calls: first what is over, then the oldest
                self._windows = {place: window for place, window in self._windows.items() if window[0] > moment}
                while len(self._windows) >= 50_000:
                    del self._windows[next(iter(self._windows))]
            self._windows[bucket, key] = (ends, used + 1)

    def spent(self, bucket: str, key: str) -> bool:
        """Whether the next `take` would be refused; nothing is counted."""
        rule = getattr(settings, f"limit_{bucket}")
        ends, used = self._windows.get((bucket, key), (0.0, 0))
        return rule != "off" and ends > time.monotonic() and used >= parse_rate(rule)[0]


def parse_rate(rule: str) -> tuple[int, float]:
    """("300/minute") → (300, 60.0). Also "20/5s"."""
    found = re.fullmatch(r"(\d+)/(\d*)\s*(s|second|m|minute|h|hour|d|day)s?", rule.strip())
    if not found:
        raise Invalid(f"{rule!r} is not a rate; write for example 300/minute, 20/5s or off")
    return int(found[1]), int(found[2] or 1) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[3][0]]


limiter = Limiter()
