"""What is sealed and must be found nowhere else: texts from outside are searched for it before anything keeps them.

Somebody pastes a key into a task, an agent prints one into its log: the value is replaced by its name, as `[STRIPE_KEY]`.
Surprise: for this the values are in memory while the vault is open. Those shorter than twelve characters are not
looked for here: a word of everyday would vanish from every text. Only what the host's own people, keys and agents send is
searched: to another tenant, a text that comes back changed would tell that a guess was right.
"""
import json
import re
import time
from collections.abc import Callable

from orkosi import Problem, acting, system

NAMED = re.compile(r'["\\\x00-\x1f\x7f]')  # what a name may not have that stands within somebody's JSON
LEAST, AGAIN = 12, 30.0  # characters; seconds until a vault that was sealed is asked again

Values = Callable[[], dict[str, str]]
_tellers: list[Values] = []
_known: list[tuple[bytes, bytes]] | None = None
_until = 0.0
_changes = 0


def tells(values: Values) -> Values:
    """Register who knows sealed values: by name, as they are now."""
    _tellers.append(values)
    return values


def forget() -> None:
    """Something was sealed or deleted: ask again."""
    global _known, _changes
    _known, _changes = None, _changes + 1


def blotted(raw: bytes) -> bytes:
    """JSON, or any text in UTF-8, without what is sealed; JSON that has it behind escapes comes back in other words."""
    faces = _faces()
    raw = _without(raw, faces)
    if faces and (b"\\u" in raw or b"\\/" in raw):
        plain = _plain(raw)
        if (clean := _without(plain, faces)) != plain:
            return clean
    return raw


def _without(raw: bytes, faces: list[tuple[bytes, bytes]]) -> bytes:
    for face, name in faces:
        if face in raw:
            raw = raw.replace(face, name)
    return raw


def _plain(raw: bytes) -> bytes:
    """JSON with no escape that it need not have: `\\u0073k_live` is `sk_live` to whoever reads it. What is none stays."""
    try:
        return json.dumps(json.loads(raw), ensure_ascii=False).encode(errors="surrogatepass")
    except (ValueError, RecursionError):
        return raw


def blotted_text(text: str) -> str:
    """The same of a text."""
    return blotted(text.encode(errors="surrogatepass")).decode(errors="surrogatepass") if _faces() else text


def up_to_any(raw: bytes) -> bytes:
    """The beginning of `raw`, up to where something sealed stands in it, or may begin at its end."""
    for face, _ in _faces():
        raw = raw.partition(face)[0]
        raw = next((raw[:-length] for length in range(min(len(face) - 1, len(raw)), 3, -1) if raw.endswith(face[:length])), raw)
    return raw


def _faces() -> list[tuple[bytes, bytes]]:
    global _known
    known = _known
    if known is None or time.monotonic() > _until:
        before = _changes
        known = _ask()
        if before == _changes:  # else something was sealed while this asked, and the next one asks again
            _known = known
    return known


def _ask() -> list[tuple[bytes, bytes]]:
    global _until
    found: dict[bytes, bytes] = {}
    _until = float("inf")
    try:
        with acting(system()):
            values = {name: value for tell in _tellers for name, value in tell().items() if len(value) >= LEAST}
    except Problem:
        _until = time.monotonic() + AGAIN
        return []
    for name, value in values.items():
        for face in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
            found[face.encode(errors="surrogatepass")] = f"[{NAMED.sub('_', name)}]".encode()
    return sorted(found.items(), key=lambda one: -len(one[0]))
