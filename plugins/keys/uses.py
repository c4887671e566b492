"""Who used a key, when, and for what: kept in memory, and written down once a second.

A request never waits for its own record. What a kill of the process loses is at most the last second.
Surprise: under a flood, the oldest unwritten uses are dropped, and of each key only the newest stay.
"""
import contextlib
import re
import threading
from collections import deque

from orkosi import Page, Paging, Problem, Request, Struct, across_tenants, clean, db, jsoned, now, writes
from plugins import lists
from plugins.lists import Listing

from . import plugin

KEEP_DAYS, KEEP_EACH, BATCH = 30, 10_000, 1000


class Use(Struct):
    """One request that a key made. `route` is the operation's path, without the ids; or the path asked for, where there is no such operation."""
    id: int
    method: str
    route: str
    status: int
    address: str
    at: str


USES = Listing(of=Use, source="api_key_uses", base="key_id = :key")
# One statement for all rows: row by row, the writer would give its turn at the interpreter away at each,
# and everybody else's write would wait behind this one.
ADD = """INSERT INTO api_key_uses (key_id, method, route, status, address, at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
           FROM json_each(:uses)"""

_stamps: dict[str, str] = {}  # key → last use
_uses: deque[tuple[str, str, str, int, str, str]] = deque(maxlen=20_000)  # as ADD has them
_taking = threading.Lock()
_touched: set[str] = set()    # keys with new uses since they were last cut down to KEEP_EACH


def stamp(id: str) -> None:
    """Note that a key was used now."""
    _stamps[id] = now()


@plugin.watch
def note(request: Request, status: int, seconds: float, size: int) -> None:
    """Note what a key asked for, and what it was answered."""
    if request.actor.kind == "key":
        route = request.endpoint.path if request.endpoint else _unknown(request)
        _uses.append((request.actor.credential, request.method, route, status, request.address, now()))


def _unknown(request: Request) -> str:
    """A path that leads nowhere, without what may be a code or a key in it."""
    return clean(re.sub(r"[^/]{25,}", "…", request.path), 200)


@plugin.every("1s")
def flush() -> None:
    """Write down what happened since the last time."""
    while _stamps or _uses:
        with _taking:  # and not while writing: the writer itself calls this at the end
            stamps = [(id, _stamps.pop(id)) for id in list(_stamps)]
            batch = [_uses.popleft() for _ in range(min(BATCH, len(_uses)))]
        _write(stamps, batch)


@plugin.on("closing")
def finish(event: str, folder: object) -> None:
    """The last uses, before the files are closed."""
    flush()


@writes(durable=False)
@across_tenants
def _write(stamps: list[tuple[str, str]], uses: list[tuple[str, str, str, int, str, str]]) -> None:
    for id, when in stamps:
        db.run("UPDATE api_keys SET last_used_at = :when WHERE id = :id", id=id, when=when)
    db.run(ADD, uses=jsoned(uses))
    _touched.update(key for key, *_ in uses)


def page(key: str, query: Paging) -> Page[Use]:
    """What a key was used for, newest first. Callers have seen to it that the key is theirs."""
    with contextlib.suppress(Problem):  # whoever looks wants to see the request before this one; a full disk shows the rest
        flush()
    return lists.page(USES, query, key=key)


@plugin.every("1m")
def prune() -> None:
    """Forget uses older than 30 days, and of each key all but the newest 10,000."""
    while _forget_old():
        pass
    for key in list(_touched):
        _touched.discard(key)
        while _forget_surplus(key):
            pass


@writes(durable=False)
def _forget_old() -> bool:
    # Ids grow with time, so the oldest stand first: this reads only what it deletes, and one more.
    return db.run("""
        DELETE FROM api_key_uses WHERE id IN (
          SELECT id FROM api_key_uses WHERE id < ifnull((SELECT id FROM api_key_uses WHERE at >= :since ORDER BY id LIMIT 1), 1 << 62)
           ORDER BY id LIMIT :most)""", since=now(-KEEP_DAYS * 86400), most=BATCH) == BATCH


@writes(durable=False)
def _forget_surplus(key: str) -> bool:
    return db.run("""
        DELETE FROM api_key_uses WHERE id IN (
          SELECT id FROM api_key_uses WHERE key_id = :key AND id <= (
            SELECT id FROM api_key_uses WHERE key_id = :key ORDER BY id DESC LIMIT 1 OFFSET :keep)
           ORDER BY id LIMIT :most)""", key=key, keep=KEEP_EACH, most=BATCH) == BATCH
