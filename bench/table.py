"""The table: every number of every round, and what is printed of them.

A row compares one number of ours with one of a peer. What it must hold is a text that is both shown and
checked: "≥ 1.2×" is about the ratio, "≤ 25 ms" about the number itself; what stands in brackets is an aim, and
is only shown. A row that was not measured says why, and holds neither "yes" nor "no".
"""
import contextlib
import re
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field

HEAD = "| what | here (median) | beside | ratio | must hold | holds |\n|---|---|---|---|---|---|"
RULE = re.compile(r"([≥≤<]) ([\d.,]+)(×?)")


@dataclass
class Row:
    what: str
    unit: str
    beside: str
    must: str
    note: str = ""
    here: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    def value(self) -> float | None:
        return statistics.median(self.here) if self.here else None

    def ratio(self) -> float | None:
        """The median of the rounds' ratios: the two numbers of a round were measured close in time."""
        pairs = [(ours, theirs) for ours, theirs in zip(self.here, self.other, strict=False) if theirs]
        return statistics.median(ours / theirs for ours, theirs in pairs) if pairs else None

    def holds(self) -> str:
        rule = RULE.match(self.must)
        if not rule:
            return ""
        found = self.ratio() if rule[3] else self.value()
        if found is None:
            return "not measured"
        limit = float(rule[2].replace(",", ""))
        return "yes" if {"≥": found >= limit, "≤": found <= limit, "<": found < limit}[rule[1]] else "no"

    def line(self) -> str:
        beside = self.beside
        if self.other:
            beside += f": {shown(statistics.median(self.other), self.unit)}"
        text = "; ".join(part for part in (beside, self.note) if part)
        ratio = self.ratio()
        median = self.value()
        here = "–" if median is None else shown(median, self.unit)
        return f"| {self.what} | {here} | {text} | {'' if ratio is None else f'{ratio:.2f}'} | {self.must} | {self.holds()} |"


class Table:
    """Rows in the order in which they were first measured."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def add(self, what: str, unit: str, here: float | None, beside: str = "", other: float | None = None, *,
            must: str = "", note: str = "") -> None:
        """One round's number, and the peer's of the same round. None: it was not measured."""
        row = self.rows.setdefault((what, beside), Row(what, unit, beside, must))
        row.note = note or row.note
        if here is not None:
            row.here.append(here)
        if other is not None:
            row.other.append(other)
        against = f"  ({beside}: {shown(other, unit)})" if other is not None else ""
        print(f"{time.strftime('%H:%M:%S')} {what}: {'–' if here is None else shown(here, unit)}{against}", file=sys.stderr, flush=True)

    def skip(self, what: str, why: str) -> None:
        """Name something that is not measured at all."""
        if (line := f"{what}: {why}") not in self.skipped:
            self.skipped.append(line)
            print(f"skipped: {line}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Let one measurement fail without the others; it is named under the table."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed.append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def text(self) -> str:
        parts = [HEAD, *(row.line() for row in self.rows.values()), "", *self._lines("Skipped", self.skipped), *self._lines("Failed", self.failed),
                 "## Round by round", "", "| what | whose | rounds |", "|---|---|---|"]
        told = set()
        for row in self.rows.values():
            if row.here and row.what not in told:
                told.add(row.what)
                parts.append(f"| {row.what} | here | {' · '.join(shown(one, row.unit) for one in row.here)} |")
            if row.other:
                parts.append(f"| {row.what} | {row.beside} | {' · '.join(shown(one, row.unit) for one in row.other)} |")
        return "\n".join(parts) + "\n"

    @staticmethod
    def _lines(title: str, lines: list[str]) -> list[str]:
        return [f"{title}:", "", *(f"- {line}" for line in lines), ""] if lines else []


def shown(value: float, unit: str) -> str:
    digits = {"/s": 0, "MB": 0, "": 0}.get(unit, 1)
    text = f"{value:,.{digits}f}"
    return text + unit if unit == "/s" else f"{text} {unit}".rstrip()
