"""Bodies: what a delivery says, and what a pointer finds in it. No reading, no writing.

Surprise: a body that cannot be read as JSON is no fault of a delivery that is proven: it is kept as text, and pointers find nothing in it.
"""
import json
import re
from typing import Any
from urllib.parse import parse_qsl

from orkosi import Invalid, strict

MISSING: Any = object()


def read(raw: bytes, type: str) -> tuple[Any, str]:
    """A body as what it says, MISSING where that cannot be read, and as text. A form's `payload` is the body, as GitHub and Slack send it."""
    text = raw.decode(errors="replace").replace("\0", "\ufffd")
    if type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        return _form(text)
    return _json(raw), text


def _json(raw: bytes) -> Any:
    try:
        return strict(raw)
    except Invalid:
        return MISSING


def _form(text: str) -> tuple[Any, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=100)
    except ValueError:
        return MISSING, text
    given = {name: value.replace("\0", "\ufffd") for name, value in pairs}
    if len(given) < len(pairs):
        return MISSING, text
    if "payload" in given:
        return _json(given["payload"].encode()), given["payload"]
    return given, text


def found(body: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) finds; MISSING where that is nothing, or null."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(body, dict):
            body = body.get(part, MISSING)
        elif isinstance(body, list) and re.fullmatch(r"0|[1-9][0-9]{0,6}", part) and int(part) < len(body):
            body = body[int(part)]
        else:
            return MISSING
    return MISSING if body is None else body


def as_text(value: Any) -> str:
    """What a pointer found, as text: JSON where it is no string."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_title(value: Any) -> str:
    """The same, on one line of at most 300 characters; "" where nothing is left of it."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", as_text(value)[:5000]).split())[:300].strip()
