"""Gauges: what the server counts of itself while it runs, for whoever asks.

Plain numbers that one thread writes and any may read. Surprise: the loop's lag is how much later than a second it looked again; a loop that
is never late has none.
"""
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugins.server.loop import Server

lags: deque[float] = deque(maxlen=60)  # seconds, of the last minute's looks
answered: Counter[str] = Counter()     # "2xx" → how many answers
running: list["Server"] = []           # the loop, while it runs
damaged: dict[Path, str] = {}          # a data folder whose database was found damaged → what was said of it last


def lag() -> float:
    """The worst of the last minute, in seconds."""
    return max(lags, default=0.0)


def lanes() -> dict[str, int]:
    """How many requests wait in each lane."""
    return {name: lane.waiting for name, lane in running[0].lanes.items()} if running else {}


def parked() -> int:
    """How many requests stand aside."""
    return len(running[0].room.calls) if running else 0


def connections() -> int:
    """How many connections are open."""
    return len(running[0].active_channels) if running else 0
