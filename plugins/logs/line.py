"""From the bytes of a log file to rows: what is cut, escaped, and read out of a line.

Owns no table. Surprise: a line's own time counts only as far as it is not in the future, for
pruning trusts that lines which came in early are old.
"""
import re
from datetime import UTC, datetime
from typing import Any

from orkosi import clean

LONGEST = 8192  # bytes of a line that are kept
CUT = " … [cut at 8 KiB]"

_TIME = re.compile(r"\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?: ?Z|[+-]\d\d:?\d\d)?)\]?[ \t]*")
_TASK = re.compile(r"\[task (\d{1,18})\] ?")
_ERROR = re.compile(r"(?:error|exception)\b|\bfatal\b|traceback \(")
_WARN = re.compile(r"\bwarn(?:ing)?\b")
LEVELS = {"CRITICAL": "error", "FATAL": "error", "ERROR": "error", "WARNING": "warn", "WARN": "warn", "NOTICE": "info", "INFO": "info",
          "DEBUG": "info", "TRACE": "info"}
_LEVEL = re.compile(rf"\[?({'|'.join(LEVELS)})\b")


def parse(raw: bytes, moment: str, file: str, agent: str | None = None) -> dict[str, Any] | None:
    """One line of a file as a row; None for an empty one."""
    text = shortened(raw)
    created, text = _time(text, moment)
    task = None
    if text.startswith("[task ") and (found := _TASK.match(text)):
        task, text = int(found[1]), text[found.end():]
    if not text.strip():
        return None
    return {"file": file, "agent": agent, "level": level(text), "message": text if text.isprintable() else clean(text, len(text)),
            "task_id": task, "created_at": created}


def shortened(raw: bytes) -> str:
    """The line as text, at most LONGEST bytes of it; what is no UTF-8 becomes �."""
    if len(raw) > LONGEST:
        return raw[:LONGEST].decode(errors="replace") + CUT
    return raw.rstrip(b"\r").decode(errors="replace")


def level(text: str) -> str:
    """The level a line names at its beginning; else error or warn where its words say so; else info."""
    if found := _LEVEL.match(text):
        return LEVELS[found[1]]
    lower = text.lower()
    if ("err" in lower or "exc" in lower or "fatal" in lower or "traceback" in lower) and _ERROR.search(lower):
        return "error"
    return "warn" if "warn" in lower and _WARN.search(lower) else "info"


def _time(text: str, moment: str) -> tuple[str, str]:
    """(created_at, the rest): the time a line begins with, in UTC; `moment` where there is none."""
    if not (text[:2].isdigit() or text[:1] == "[") or not (found := _TIME.match(text)):
        return moment, text
    stamp = found[1]
    try:
        when = datetime.fromisoformat(stamp.replace(",", ".").replace(" Z", "Z"))
    except ValueError:
        return moment, text
    if len(stamp) == 24 and stamp[10] == "T" and stamp[23] == "Z":
        return min(stamp, moment), text[found.end():]  # as Orkosi itself writes it: nothing to convert
    try:
        utc = when.astimezone(UTC)  # a time that names no zone is this machine's
    except (OverflowError, ValueError, OSError):
        return moment, text
    return min(utc.isoformat(timespec="milliseconds")[:23] + "Z", moment), text[found.end():]
