"""Reports: what a brain may say of its run, as JSON in $ORKOSI_REPORT, and what of that can be used.

Surprise: each field is read by itself. A wrong one takes none of the others along, but the run is no success then: somebody must look.
"""
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from orkosi import Meta, Struct

MOST = 64 << 10  # bytes of a report

Count = Annotated[int, Meta(ge=0, le=2**53)]
Status = Literal["done", "review", "blocked"]


class Report(Struct):
    """What a brain said. `retry_in_seconds` counts where it asks to be tried again (exit 75)."""
    tokens_in: Count = 0
    tokens_out: Count = 0
    cost_micros: Count = 0
    status: Status = "done"
    note: Annotated[str, Meta(max_length=4000)] | None = None
    retry_in_seconds: Annotated[float, Meta(ge=0, le=86400)] | None = None


ALLOWED = {**dict.fromkeys(("tokens_in", "tokens_out", "cost_micros"), "a whole number, 0 or more"),
           "status": f"one of {', '.join(get_args(Status))}", "note": "a text of at most 4,000 whole characters, none of them NUL",
           "retry_in_seconds": "a number of seconds, from 0 to 86400"}


def read_report(path: Path) -> tuple[Report, str | None]:
    """The report a brain wrote, and what cannot be used of it; an empty one where it wrote none."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            raw = file.read(MOST + 1)
    except FileNotFoundError:
        return Report(), None
    except OSError as error:
        return Report(), f"The report cannot be read: {error.strerror}; write a plain file of JSON to $ORKOSI_REPORT"
    if not raw.strip():
        return Report(), None
    try:
        told = json.loads(raw) if len(raw) <= MOST else None
    except (ValueError, RecursionError) as error:
        return Report(), f"The report is not JSON: {error}"
    if not isinstance(told, dict):
        return Report(), f"The report is no JSON object of at most {MOST >> 10} KiB, such as {{\"status\": \"done\", \"tokens_in\": 120}}"
    return _usable(told)


def _usable(told: dict[str, Any]) -> tuple[Report, str | None]:
    fields = {field.name: field.type for field in msgspec.structs.fields(Report)}
    report, wrong = Report(), []
    for name in fields.keys() & told.keys():
        try:
            value = msgspec.convert(told[name], fields[name])
            if isinstance(value, str) and b"\0" in value.encode():  # half of a surrogate pair raises
                raise ValueError("NUL")
            setattr(report, name, value)
        except (ValueError, OverflowError):
            wrong.append(f"{name}: {json.dumps(told[name])[:60]} is not {ALLOWED[name]}")
    return report, f"The report cannot be used: {'; '.join(sorted(wrong))}" if wrong else None
