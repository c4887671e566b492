"""Orkosi's kernel: how the house works. What it does, the plugins know.

The kernel owns problems, settings, the database, the actor and the gate, the plugin object, endpoints, loading,
services and the command line. It knows no table, no URL, no role and no product noun; tests hold it to that.

Reading order:
     0 Self-install    3 Database          6 Endpoint
     1 Problems        4 Actor and gate    7 Loading
     2 Settings        5 Plugin            8 Services      9 Command line

Three laws. The kernel knows how, the plugins know what. A plugin's `__init__.py` is its face, `api.py` its wire.
Only the plugin that owns a table writes it; everybody may read it with a join.

Surprise: importing this file opens no file, thread or connection, because it is imported twice: once as the script
that was started, and once by the plugins.
"""
from __future__ import annotations

import gc
import os
import sys

HOME = os.path.dirname(os.path.abspath(__file__))

# ───────────────────────────── 0  Self-install ─────────────────────────────
# Only this section must parse and run on an old Python, to say so in one sentence.


def enter_environment() -> None:
    """Go on in the interpreter that has the exact pins of pyproject.toml, making it if need be."""
    if sys.version_info < (3, 11):
        sys.exit("Orkosi needs Python 3.11 or newer; this is %d.%d (%s). Start it with a newer python3."
                 % (sys.version_info[0], sys.version_info[1], sys.executable))
    heal = os.path.join(HOME, "releases", "recover.py")  # there while an upgrade is under way, or was interrupted
    if os.path.exists(heal) and "ORKOSI_RECOVERING" not in os.environ:
        if os.spawnv(os.P_WAIT, sys.executable, [sys.executable, heal, HOME]) == 0 and not os.path.exists(heal):
            os.execv(sys.executable, [sys.executable] + sys.argv)  # with the files that lie there now
    if os.environ.get("ORKOSI_NO_INSTALL") == "1":
        return
    import tomllib
    with open(os.path.join(HOME, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)
    pins = list(project["project"]["dependencies"])
    if sys.argv[1:2] == ["test"]:
        pins += project["dependency-groups"]["test"]
    venv = os.path.join(HOME, ".venv")
    python, stamp = os.path.join(venv, "bin", "python"), os.path.join(venv, "orkosi.pins")
    ours = os.path.realpath(sys.prefix) == os.path.realpath(venv)
    if not ours and not os.path.exists(stamp) and _satisfied(pins):
        return  # an environment somebody made on purpose
    if not _stamped(stamp, pins) or not os.access(python, os.X_OK):
        _install(venv, python, stamp, pins)
    if not ours:
        os.execv(python, [python] + sys.argv)


def _stamped(stamp: str, pins: list) -> bool:
    try:
        with open(stamp) as file:
            return set(pins) <= set(file.read().split())
    except OSError:
        return False


def _satisfied(pins: list) -> bool:
    from importlib.metadata import PackageNotFoundError, version
    try:
        return all(version(pin.split("==")[0]) == pin.split("==")[1] for pin in pins)
    except PackageNotFoundError:
        return False


def _install(venv: str, python: str, stamp: str, pins: list) -> None:
    """Fill `.venv`; one process at a time, so that two first starts do not trip over each other."""
    import fcntl
    import subprocess
    try:
        os.makedirs(venv, exist_ok=True)
        lock = open(os.path.join(venv, "orkosi.lock"), "w")
    except OSError as error:
        sys.exit("Orkosi cannot write its .venv beside orkosi.py: %s. Make that folder writable." % error)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if _stamped(stamp, pins) and os.access(python, os.X_OK):
        return
    wheels = os.path.join(HOME, "wheels")
    origin = ["--no-index", "--find-links", wheels] if os.path.isdir(wheels) else []
    print("Orkosi installs %d pinned packages into .venv (only this once) ..." % len(pins), file=sys.stderr)
    for step in ([sys.executable, "-m", "venv", venv],
                 [python, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check",
                  "--retries", "1", "--timeout", "15"] + origin + pins):
        done = subprocess.Popen(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = []
        for line in done.stdout or ():
            said.append(line.strip())
            if line.startswith("Collecting"):
                print("  " + line.split()[1], file=sys.stderr)
        if done.wait() != 0:
            errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["it said nothing"]
            sys.exit("Orkosi could not install its packages: %s. Connect to a network, or put their wheels into %s."
                     % (errors[-1].replace("ERROR: ", "").rstrip("."), wheels))
    with open(stamp, "w") as file:
        file.write("\n".join(pins) + "\n")


if __name__ == "__main__":
    enter_environment()
    gc.disable()  # until all is loaded, which stays: to look through it again and again took a fifth of a start
    from orkosi import main  # type: ignore[attr-defined]  # the copy that plugins import; this one only starts it
    sys.exit(main())

import contextlib
import functools
import importlib
import inspect
import itertools
import json
import logging
import pkgutil
import re
import shutil
import signal
import threading
import time
import tomllib
import types
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import parse_qsl

import apsw
import click
import msgspec
from msgspec import UNSET, Meta, Struct
from msgspec import UnsetType as UnsetType
from msgspec import field as field

VERSION = "0.1.0"
HOST_TENANT = 1
log = logging.getLogger("orkosi")

# ─────────────────────────────── 1  Problems ───────────────────────────────
# Problem ─ Invalid 400 · Unauthorized 401 · PaymentDue 402 · Denied 403 · NotFound 404 ·
#           NotAllowed 405 · Conflict 409 · TooLarge 413 · Unsupported 415 ·
#           Unprocessable 422 · TooMany 429 · Unavailable 503 · NoSpace 507
# The catalogue of codes is this tree: a plugin adds one by subclassing, its sentence is the docstring.


class Problem(Exception):
    """Something failed inside Orkosi; the log has it under the request id."""
    status = 500
    code = "internal_error"
    exit_code = 1  # of a command

    def __init__(self, message: str, details: Any = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.message, self.details, self.headers = message, details, headers or {}


class Invalid(Problem):
    """The request is malformed or a field is wrong; `details` lists every wrong field."""
    status, code = 400, "invalid"


class Unauthorized(Problem):
    """No credentials, or ones that are unknown, expired or revoked."""
    status, code = 401, "unauthorized"

    def __init__(self, message: str = "Sign in, or send 'Authorization: Bearer <session token or API key>'"):
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class PaymentDue(Problem):
    """The balance does not cover this."""
    status, code = 402, "payment_required"


class Denied(Problem):
    """Signed in, but the role or the key's scopes do not allow this."""
    status, code = 403, "forbidden"


class NotFound(Problem):
    """There is no such thing here, or it belongs to another tenant."""
    status, code = 404, "not_found"


class NotAllowed(Problem):
    """The path exists, but not with this method; `Allow` names the ones it has."""
    status, code = 405, "method_not_allowed"


class Conflict(Problem):
    """The request contradicts the present state: taken, already done, or changed meanwhile."""
    status, code = 409, "conflict"


class TooLarge(Problem):
    """The body is larger than this endpoint accepts."""
    status, code = 413, "too_large"


class Unsupported(Problem):
    """The body is not JSON; send `Content-Type: application/json`."""
    status, code = 415, "unsupported_media_type"


class Unprocessable(Problem):
    """Well formed, but not possible as things stand."""
    status, code = 422, "unprocessable"


class TooMany(Problem):
    """Too many requests of this kind; `Retry-After` says for how many seconds."""
    status, code = 429, "rate_limited"


class Unavailable(Problem):
    """A part Orkosi needs is not to be had right now; try again."""
    status, code = 503, "unavailable"


class NoSpace(Problem):
    """The disk is full or nearly so; reads go on, writes wait until there is room."""
    status, code = 507, "no_space"


# ─────────────────────────────── 2  Settings ───────────────────────────────


class Setting(Struct, frozen=True):
    name: str
    type: type
    default: Any
    sentence: str
    secret: bool = False


class Settings:
    """Knobs by name: a default, then `orkosi.toml`, then `ORKOSI_<NAME>`, then the command line."""

    def __init__(self) -> None:
        self.known: dict[str, Setting] = {}
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"There is no setting {name!r} (or none is loaded yet)") from None

    def declare(self, name: str, type: type, default: Any, sentence: str, secret: bool = False) -> None:
        self.known[name] = Setting(name, type, default, sentence, secret)

    def load(self, environ: dict[str, str] | None = None, **given: Any) -> None:
        """Read every origin anew; a value of the wrong type or an unknown name in the file is Invalid."""
        environ = dict(os.environ) if environ is None else environ
        folder = Path(given.get("data") or environ.get("ORKOSI_DATA") or Path(HOME, "data")).absolute()
        file = self._file(folder / "orkosi.toml")
        for one in self.known.values():
            value, origin = one.default, "default"
            if one.name in file:
                value, origin = file[one.name], "orkosi.toml"
            if (env := f"ORKOSI_{one.name.upper()}") in environ:
                value, origin = environ[env], env
            if given.get(one.name) is not None:
                value, origin = given[one.name], "command line"
            self.values[one.name], self.origins[one.name] = self._cast(one, value, origin), origin
        self.values["data"] = folder

    def _file(self, path: Path) -> dict[str, Any]:
        try:
            found = tomllib.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
            raise Invalid(f"{path} cannot be read: {error}") from None
        if unknown := sorted(set(found) - set(self.known)):
            raise Invalid(f"{path}: there is no setting {unknown[0]!r}; see 'python3 orkosi.py settings'")
        return found

    @staticmethod
    def _cast(one: Setting, value: Any, origin: str) -> Any:
        try:
            if one.type is bool and isinstance(value, str):
                value = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[value.lower()]
            if value is None or one.type is Path:
                return value if value is None else Path(value)
            return one.type(value)
        except (KeyError, TypeError, ValueError):
            raise Invalid(f"Setting {one.name} ({origin}) must be {one.type.__name__}, not {value!r}") from None


settings = Settings()
settings.declare("data", Path, None, "The one folder that holds everything; default: data beside orkosi.py")
settings.declare("durability", str, "power", "power: an acknowledged write survives a power cut; process: only a kill")
settings.declare("min_free_mb", int, 64, "Below this much free disk, in MiB, writes answer 507")
THOUSANDTHS = [f".{rest:03d}Z" for rest in range(1000)]


def now(ahead: float = 0.0) -> str:
    """The time, `ahead` seconds from now: ISO 8601, UTC, milliseconds, Z. Such texts sort as times do."""
    whole, rest = divmod(int((time.time() + ahead) * 1000), 1000)
    return _whole_second(whole) + THOUSANDTHS[rest]


@functools.lru_cache(maxsize=64)
def _whole_second(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()[:19]


def seconds(stamp: str) -> float:
    """Unix seconds of a time that `now` wrote."""
    return datetime.fromisoformat(stamp).timestamp()


# ─────────────────────────────── 3  Database ───────────────────────────────
# Readers share a stack of connections. Writers share one connection and one turn. The thread that holds the turn
# is the leader: it runs all queued writes in one transaction, each under a savepoint of its own, commits once, wakes
# their callers, and hands the turn to the next waiting thread. The flush costs far more than the inserts, and so it
# is shared, and may go on while others commit. A thread that finds nobody writing leads at once, and waits for none.


class Damaged(Unavailable):
    """The database file is damaged; stop the server and put an undamaged copy in its place."""
    code = "damaged"


T = TypeVar("T")
COUNTED, MOST_PICKS = 10_000, 2_000
TURN = 0.01  # seconds of writes that one commit holds, if more than one


class Page(Struct, Generic[T]):
    """One page of a list. `total` is exact up to COUNTED; beyond that `exceeded` is true. `next_after`: the cursor of the next page."""
    items: list[T]
    total: int
    limit: int
    offset: int
    exceeded: bool = False
    more: bool = False
    next_after: str | None = None

    @classmethod
    def empty(cls, query: Paging) -> Page[Any]:
        """The page of a list that has nothing for `query`."""
        return Page([], 0, query.limit, query.offset)

    def map(self, make: Callable[[T], Any]) -> Page[Any]:
        """The same page, each item as `make` shows it."""
        return msgspec.structs.replace(self, items=[make(item) for item in self.items])


Limit = Annotated[int, Meta(ge=1, le=200, description="Items a page")]
Offset = Annotated[int, Meta(ge=0, le=2**31, description="Items to skip")]
After = Annotated[str, Meta(max_length=2000, description="`meta.next_after` of the page before: go on from where it ended, whatever came or went")]


class Paging(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every list's query."""
    limit: Limit = 50
    offset: Offset = 0
    after: After = ""


class Write:
    """One call on its way: `tell` is called where the turn is now its owner's, once it is committed, and once it is finished, if that is later."""
    __slots__ = ("call", "actor", "durable", "tell", "single", "committed", "finished", "result", "error", "after", "slow")

    def __init__(self, call: Callable[[], Any], actor: Actor, durable: bool, tell: Callable[[Write], None], single: bool = False):
        self.call, self.actor, self.durable, self.tell, self.single = call, actor, durable, tell, single
        self.result: Any = None
        self.error: BaseException | None = None
        self.after: list[Callable[[], Any]] = []
        self.committed = self.finished = self.slow = False


class Database:
    """`orkosi.db` with `logs.db` attached as `logs`. Every connection comes from `connect`."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.columns: dict[str, tuple[str, ...]] = {}
        self._idle: list[apsw.Connection] = []
        self._builders: dict[tuple[str, Any], Callable[[tuple], Any]] = {}
        self._picks: dict[str, Callable[[dict[str, Any]], tuple]] = {}
        self._writer_thread = 0
        self._turn = threading.Lock()
        self._inbox: deque[Write] = deque()

    # ── opening and closing ──

    def open(self, folder: Path, *, durability: str = "power", vfs: str | None = None, flusher: Any = None) -> None:
        """Open, or make, the two files in `folder`; the schema is not touched (see `upgrade`). A `flusher` makes commits durable."""
        if tuple(map(int, apsw.sqlite_lib_version().split("."))) < (3, 51, 3):
            raise Unavailable(f"SQLite {apsw.sqlite_lib_version()} has the WAL-reset bug; 3.51.3 or newer is needed")
        self.folder, self.min_free, self.vfs, self.flusher = folder, 0, vfs, flusher if durability == "power" else None
        self._full, self._free_until, self.commits, self._idle = "NORMAL" if durability == "process" else "FULL", 0.0, 0, []
        self._builders.clear()
        self.writer = self.connect("NORMAL" if self.flusher else "")

    def close(self) -> None:
        """Let queued writes finish, fold the WAL into the files, and let go of them."""
        if self.folder is None:
            return
        with self._turn:
            if self.flusher:
                self.flusher.close()
            self._close()
        self.folder = None

    def _close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        for name in ("main", "logs"):
            with contextlib.suppress(apsw.Error):
                self.writer.execute(f"SELECT 1 FROM {name}.sqlite_schema LIMIT 1").fetchall()  # an unread one does nothing
                self.writer.wal_checkpoint(name, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.writer.close()

    def connect(self, sync: str = "") -> apsw.Connection:
        """A connection as every connection here must be. Raises Damaged, NoSpace, Unavailable."""
        assert self.folder
        with translated():
            con = apsw.Connection(str(self.folder / "orkosi.db"), vfs=self.vfs, statementcachesize=300)
            con.set_busy_timeout(5000)
            # Without this, SQLite plans a statement anew whenever a value is bound: 30 µs instead of 3.
            con.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            con.execute("ATTACH :file AS logs", {"file": str(self.folder / "logs.db")})
            con.execute("""
                PRAGMA main.journal_mode = wal; PRAGMA logs.journal_mode = wal;
                PRAGMA fullfsync = on; PRAGMA checkpoint_fullfsync = on; PRAGMA cache_size = -1024; PRAGMA logs.cache_size = -1024;
                PRAGMA wal_autocheckpoint = 8000; PRAGMA logs.synchronous = normal; PRAGMA main.journal_size_limit = 67108864;
                PRAGMA logs.journal_size_limit = 67108864; PRAGMA foreign_keys = on;
                PRAGMA trusted_schema = off; PRAGMA cell_size_check = on; PRAGMA mmap_size = 0;
                PRAGMA secure_delete = on""").fetchall()  # without which it stops at the first row
            con.execute(f"PRAGMA main.synchronous = {sync or self._full}")
            mine, = con.execute("PRAGMA main.application_id").fetchall()[0]
            if mine not in (0, APPLICATION_ID):
                raise Damaged(f"{self.folder / 'orkosi.db'} is some other program's SQLite file; choose another --data")
            return con

    # ── writing ──

    def write(self, call: Callable[[], Any], *, durable: bool = True, single: bool = False) -> Any:
        """Run `call` in the writer's transaction and return when the commit holds; nested, just run it."""
        if threading.get_ident() == self._writer_thread:
            return call()
        assert not getattr(here, "flushing", False), "what follows a commit writes nothing: nobody would be there to flush it"
        (bell := threading.Lock()).acquire()
        item = Write(call, current(), durable, lambda item: None if item.committed and not item.finished else bell.release(), single)
        self._through([item], bell, lambda: item.finished)
        for follow in item.after:
            follow()
        if item.error is not None:
            raise item.error
        return item.result

    def write_all(self, items: list[Write], bell: Any) -> None:
        """Run several writes with whatever else waits; return when all are committed. `tell` must release `bell` then, and where the turn is ours."""
        self._through(items, bell, lambda: all(item.committed for item in items))

    def _through(self, items: list[Write], bell: Any, done: Callable[[], bool]) -> None:
        self._inbox.extend(items)
        if self._turn.acquire(blocking=False):
            self._lead()
        while not done():
            bell.acquire()
            if not done():  # the turn was passed to us
                self._lead()

    def after_commit(self, follow: Callable[[], Any], *, slow: bool = False) -> None:
        """Inside a write: call `follow` once the commit holds, never if it does not. `slow`: it touches disk, process or network."""
        self._item.after.append(follow)
        self._item.slow |= slow

    def _lead(self) -> None:
        """With the turn: commit what waits, then pass the turn on, or give it up where nobody waits."""
        mine, self._writer_thread = current(), threading.get_ident()
        waiting = [self._inbox.popleft() for _ in range(min(len(self._inbox), 256))]
        try:
            # Those that need no flush go first, in a commit of their own: they must not wait for one.
            for durable in (False, True):
                if batch := [item for item in waiting if item.durable is durable]:
                    self._commit(batch, self.flusher if durable else None)
        finally:
            here.actor, self._writer_thread = mine, 0
            self._pass_on()

    def _pass_on(self) -> None:
        while True:
            if self._inbox:
                self._inbox[0].tell(self._inbox[0])  # its owner leads now; the turn stays taken
                return
            self._turn.release()
            # One who came between the look and the release found the turn taken, and sleeps.
            if not self._inbox or not self._turn.acquire(blocking=False):
                return

    def _commit(self, batch: list[Write], flusher: Any) -> None:
        con = self.writer
        try:
            self._require_space()
            batch = self._run(con, batch)
            con.execute("COMMIT" if len(batch) > 1 or batch[0].error is None else "ROLLBACK")
            self.commits += 1
        except BaseException as error:  # the commit itself failed: none of them happened
            if con.in_transaction:
                con.execute("ROLLBACK")
            known = translate(error)
            for item in batch:
                item.error = item.error or known
        for item in batch:
            item.committed, item.finished, item.after = True, not flusher or item.error is not None, [] if item.error else item.after
            item.tell(item)
        if later := [item for item in batch if not item.finished]:
            flusher.add(later)

    def _run(self, con: apsw.Connection, batch: list[Write]) -> list[Write]:
        """Run writes for 10 ms, each once and under a savepoint, so that one that fails goes alone; those that ran. The rest lines up again."""
        con.execute("BEGIN IMMEDIATE")
        several, began = len(batch) > 1, time.perf_counter()
        for at, item in enumerate(batch):
            started = time.perf_counter()
            if started - began > TURN and at:
                self._inbox.extendleft(reversed(batch[at:]))
                return batch[:at]
            self._item, here.actor, item.after, item.error = item, item.actor, [], None
            savepoint = several and not item.single
            if savepoint:
                con.execute("SAVEPOINT one")
            try:
                item.result = item.call()
            except Exception as error:
                item.error = translate(error)
                if several and not con.in_transaction:
                    raise item.error from None  # SQLite undid everything by itself: the disk is full
                if savepoint:
                    con.execute("ROLLBACK TO one")
            if savepoint:
                con.execute("RELEASE one")
            if (took := time.perf_counter() - started) > 0.05:
                log.warning("slow write %s: %.0f ms", getattr(item.call, "func", item.call).__qualname__, took * 1000)
        return batch

    def _require_space(self) -> None:
        if self.min_free and time.monotonic() > self._free_until:
            assert self.folder
            if shutil.disk_usage(self.folder).free < self.min_free:
                raise NoSpace(f"Less than {self.min_free >> 20} MiB are free; make room, then try again")
            self._free_until = time.monotonic() + 1

    # ── reading ──

    def all(self, kind: Any, sql: str, /, **params: Any) -> list[Any]:
        """Every row as `kind`: a Struct (its fields by column name), `dict`, or `tuple`."""
        params["tenant"] = current().tenant
        return self._ask(lambda con: self._rows(con, kind, sql, params))

    def stamp(self) -> Any:
        """What equals an earlier one only where no process has committed anything in between: what was read since then still holds."""
        return self._ask(lambda con: object() if con is self.writer else (id(con), con.execute("PRAGMA main.data_version").get))

    def one(self, kind: Any, sql: str, /, **params: Any) -> Any:
        """The first row as `kind`, or None."""
        rows = self.all(kind, sql, **params)
        return rows[0] if rows else None

    def value(self, sql: str, /, **params: Any) -> Any:
        """The first column of the first row, or None."""
        rows = self.all(tuple, sql, **params)
        return rows[0][0] if rows else None

    def run(self, sql: str, /, **params: Any) -> int:
        """Execute one statement inside a write; the number of rows it changed."""
        return self._change(sql, params)

    def add(self, sql: str, /, **params: Any) -> int | None:
        """Execute one INSERT inside a write; the new row's id, or None where ON CONFLICT did nothing."""
        return self.writer.last_insert_rowid() if self._change(sql, params) else None

    def _change(self, sql: str, params: dict[str, Any]) -> int:  # apart, for to hand on fifteen names as such takes a microsecond
        assert threading.get_ident() == self._writer_thread, "db.run belongs into a verb marked @writes"
        params["tenant"] = current().tenant
        self.writer.execute(sql, self._in_order(self.writer, sql, params)).fetchall()
        return self.writer.changes()

    def run_many(self, sql: str, rows: Iterable[dict[str, Any]], /) -> None:
        """Execute one statement for every row of parameters inside a write; no `:tenant` is bound.

        For bulk that would cost more in calls than in SQLite; keep a batch short, others wait behind it.
        """
        assert threading.get_ident() == self._writer_thread, "db.run_many belongs into a verb marked @writes"
        self.writer.executemany(sql, (self._in_order(self.writer, sql, row) for row in rows))

    def _ask(self, ask: Callable[[apsw.Connection], Any]) -> Any:
        if threading.get_ident() == self._writer_thread:
            return ask(self.writer)
        try:
            con = (idle := self._idle).pop()  # and back into the same: another folder may be open by then
        except IndexError:
            con = self._reader()
        try:
            return ask(con)
        except (apsw.Error, OverflowError) as error:
            raise translate(error) from None
        finally:
            idle.append(con)

    def _reader(self) -> apsw.Connection:
        con = self.connect()
        con.execute("PRAGMA query_only = on")
        # A reader that never ends would keep the WAL from being folded: none may run for 10 s, or for what its thread allows.
        deadline = [0.0]
        con.set_progress_handler(lambda: time.monotonic() > deadline[0], 50_000)
        con.set_exec_trace(lambda *_: deadline.__setitem__(0, time.monotonic() + getattr(here, "patience", 10)) or True)
        return con

    def _rows(self, con: apsw.Connection, kind: Any, sql: str, params: dict[str, Any]) -> list[Any]:
        cursor = con.execute(sql, self._in_order(con, sql, params))
        if kind is tuple:
            return cursor.fetchall()
        build = self._builders.get((sql, kind))
        if build is None:
            try:
                columns = [column[0] for column in cursor.get_description()]
            except apsw.ExecutionCompleteError:
                return []
            build = self._builders[sql, kind] = _builder(kind, columns)
        return [build(row) for row in cursor]

    def _in_order(self, con: apsw.Connection, sql: str, params: dict[str, Any]) -> tuple:
        """What a statement's parameters stand for, in its order: given by name, each is looked up anew, 1 µs of an INSERT's 9."""
        pick = self._picks.get(sql)
        if pick is None:
            names: dict[str, tuple[str, ...]] = {}
            cursor = con.cursor()
            cursor.exec_trace = lambda cursor, *_: names.setdefault(sql, cursor.bindings_names) is None  # False: it is not run
            with contextlib.suppress(apsw.ExecTraceAbort):
                cursor.execute(sql, params)
            if len(self._picks) >= MOST_PICKS:  # a list has a statement for each set of filters: whoever asks for all of them fills no memory
                self._picks, self._builders = {}, {}
            pick = self._picks[sql] = eval(f"lambda given: ({''.join(f'given[{name!r}], ' for name in names[sql])})")
        return pick(params)

    # ── the four statement writers ──

    def insert(self, kind: Any, table: str, /, *sources: Struct, **extra: Any) -> Any:
        """INSERT the structs' set fields and `extra`; the new row as `kind`. Conflict, Invalid."""
        values = self._values(table, *sources, **extra)
        if "tenant_id" in self.columns[table]:
            values.setdefault("tenant_id", current().tenant)
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        return self.one(kind, f"INSERT INTO {table} ({names}) VALUES ({marks}) RETURNING *", **values)

    def patch(self, kind: Any, table: str, id: int | str, /, *sources: Struct, **extra: Any) -> Any:
        """UPDATE what is set, stamp `updated_at`; the row as `kind`. NotFound, Conflict, Invalid."""
        values = self._values(table, *sources, **extra)
        if "updated_at" in self.columns[table]:
            values.setdefault("updated_at", now())
        sets = ", ".join(f"{name} = :{name}" for name in values) or "id = id"
        row = self.one(kind, f"UPDATE {table} SET {sets} WHERE id = :id{self._mine(table)} RETURNING *", id=id, **values)
        if row is None:
            raise NotFound(f"There is no {id} in {table}")
        return row

    def delete(self, table: str, id: int | str) -> None:
        """DELETE one row; NotFound where there is none."""
        if not self.run(f"DELETE FROM {table} WHERE id = :id{self._mine(table)}", id=id):
            raise NotFound(f"There is no {id} in {table}")

    def _mine(self, table: str) -> str:
        return " AND tenant_id = :tenant" if "tenant_id" in self.columns[table] else ""

    def _values(self, table: str, /, *sources: Struct, **extra: Any) -> dict[str, Any]:
        known = self.columns[table]
        values = {name: getattr(source, name) for source in sources for name in source.__struct_fields__ if name in known}
        values |= extra
        return {name: jsoned(value) for name, value in values.items() if value is not UNSET}


def jsoned(value: Any) -> Any:
    """What a column stores of `value`: containers and structs become JSON text."""
    if isinstance(value, (dict, list, tuple, set, frozenset, Struct)):
        return msgspec.json.encode(value).decode()
    return value


def _builder(kind: Any, columns: list[str]) -> Callable[[tuple], Any]:
    if kind is dict:
        return lambda row: dict(zip(columns, row, strict=True))
    hints = typing.get_type_hints(kind)
    last = {name: at for at, name in enumerate(columns)}  # of two columns with one name, as in `t.*, f(x) AS x`, the last
    fields = [name for name in kind.__struct_fields__ if name in last]
    values = {name: f"row[{last[name]}]" for name in fields}
    mends = {f"mend_{name}": mend for name in fields if (mend := _mend(hints[name]))}
    values |= {name: f"(None if {values[name]} is None else mend_{name}({values[name]}))" for name in fields if f"mend_{name}" in mends}
    in_order = fields == list(kind.__struct_fields__)[:len(fields)]  # then no names are needed, which takes a third of the time
    # Written out, as a person would for one kind: a loop over the fields of each row is slower.
    return eval(f"lambda row: kind({', '.join(values.values() if in_order else map('='.join, values.items()))})", {"kind": kind, **mends})


def _mend(hint: Any) -> Callable[[Any], Any] | None:
    """How a column's value becomes the field's: SQLite has no booleans and no containers."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for part in parts:
        if part is bool:
            return bool
        if part is msgspec.Raw:
            return lambda text: msgspec.Raw(text.encode())
        if part is Any or typing.get_origin(part) in (dict, list) or isinstance(part, type) and issubclass(part, (dict, list, Struct)):
            return msgspec.json.Decoder(part).decode
    return None


def writes(verb: Callable | None = None, *, durable: bool = True, single: bool = False) -> Any:
    """Mark a verb as a write: it runs once, in the writer's transaction, and returns when the commit holds.

    What it does beside its rows, it does in any case; what must follow only if they hold, it hands to `db.after_commit`.

    `durable=False`: a power cut may undo it harmlessly; it survives a kill of the process, and waits for no flush.
    `single`: one statement changes all of its rows, and so needs no savepoint.
    """
    if verb is None:
        return lambda verb: writes(verb, durable=durable, single=single)

    @functools.wraps(verb)
    def written(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == db._writer_thread:
            return verb(*args, **kwargs)
        return db.write(functools.partial(verb, *args, **kwargs), durable=durable, single=single)
    return written


def across_tenants(verb: Any) -> Any:
    """Mark a verb whose SQL may see every tenant's rows: sweepers, backups, the host's own views."""
    verb.across_tenants = True
    return verb


def translate(error: BaseException) -> BaseException:
    """SQLite's errors as problems; anything else as it came."""
    if isinstance(error, apsw.ConstraintError):
        kind, _, what = str(error).partition(" constraint failed: ")
        names = ", ".join(part.split(".")[-1] for part in what.split(", ") if not part.endswith(".tenant_id"))
        if kind == "UNIQUE":
            return Conflict(f"That {names} is taken; choose another")
        return Invalid(f"Not acceptable: {kind} {what}", [{"field": names, "message": str(error)}])
    full = isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE  # a file-size limit looks so
    if full or isinstance(error, apsw.FullError):
        return NoSpace("The disk is full; make room, then try again")
    if isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError)):
        return Unavailable(f"The data folder {db.folder} cannot be written: {error}")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return Damaged(f"The database in {db.folder} is damaged ({error}); put an undamaged copy in its place")
    if isinstance(error, (apsw.InterruptError, apsw.AbortError)):
        return Unavailable("That read took longer than 10 s and was stopped; narrow it down")
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.IOError)):
        return Unavailable(f"The database did not answer: {error}")
    return Invalid("A number is too large for 64 bits") if isinstance(error, OverflowError) else error


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise translate(error) from None


db = Database()
APPLICATION_ID = 0x4F524B31  # "ORK1"

# ──────────────────────────── 4  Actor and gate ────────────────────────────

RANKS: dict[str, int] = {}  # of roles; the plugin that knows the roles fills it, the highest last


class Actor(Struct, frozen=True, kw_only=True):
    """Who is asking. `scopes` is None for a session, which only its rank limits."""
    kind: str
    id: str = ""
    tenant: int | None = None
    rank: int = 0
    role: str = ""
    scopes: frozenset[str] | None = None
    user: int | None = None       # the person behind it
    name: str = ""                # what a bound key is bound to
    credential: str = ""          # the row that proved it: what a log-out revokes
    owner: bool = False           # of the tenant

    @property
    def ref(self) -> str:
        """How records name this actor; never a name or an address, so that erasure need not rewrite them."""
        return f"{self.kind}:{self.id}" if self.id else self.kind

    @property
    def host(self) -> bool:
        return self.tenant == HOST_TENANT


NOBODY = Actor(kind="anonymous")
here = threading.local()


def current() -> Actor:
    """The actor in whose name this thread works now."""
    return getattr(here, "actor", NOBODY)


@contextlib.contextmanager
def acting(actor: Actor) -> Iterator[Actor]:
    before, here.actor = current(), actor
    try:
        yield actor
    finally:
        here.actor = before


def system(tenant: int | None = HOST_TENANT) -> Actor:
    """The server itself, at work for one tenant."""
    return Actor(kind="system", tenant=tenant, rank=max(RANKS.values(), default=0), role="system")


class Policy(Struct, frozen=True):
    """Who may call an endpoint: a least role for people, a scope for keys; both where both apply."""
    role: str = ""
    scope: str = ""
    host: bool = False
    public: bool = False
    any_key: bool = False
    owner: bool = False
    within: str = ""  # the rank one needs in the thing that the path names; the verb sees to it, for only it knows the thing

    def __str__(self) -> str:
        if self.public or self.any_key:
            return "public" if self.public else "signed in"
        words = [self.role + ("+" if RANKS.get(self.role, 9) < max(RANKS.values()) else ""), f"or key {self.scope}" if self.scope else ""]
        return " ".join(filter(None, [*words, "in the host tenant" if self.host else "", "or its owner" if self.owner else "",
                                      f"who is {self.within} there" if self.within else ""])) or "people signed in"


PUBLIC, SIGNED_IN, PERSON = Policy(public=True), Policy(any_key=True), Policy()  # PERSON: whoever has a session, but no key


def may(role: str, scope: str = "", *, host: bool = False, owner: bool = False, within: str = "") -> Policy:
    """People of at least `role`; keys with `scope`, or none; `host`: only in the host tenant; `owner`: or whoever owns the tenant."""
    if role not in RANKS:
        raise ValueError(f"There is no role {role!r}")
    return Policy(role, scope, host, owner=owner, within=within)


def admit(policy: Policy, actor: Actor) -> None:
    """Let `actor` through, or raise Unauthorized or Denied with the way out."""
    if policy.public:
        return
    if actor is NOBODY:
        raise Unauthorized()
    if policy.any_key:
        return
    if actor.scopes is not None:
        if not policy.scope:
            raise Denied("No API key may do this; sign in")
        if not scope_covers(actor.scopes, policy.scope):
            raise Denied(f"Insufficient scope: this needs {policy.scope}; the key has {' '.join(sorted(actor.scopes)) or 'none'}")
    if policy.host and not actor.host:
        raise Denied("This belongs to the operator of this server (the host tenant)")
    if actor.rank < RANKS.get(policy.role, 0) and not (policy.owner and actor.owner):
        raise Denied(f"This needs the role {policy.role} or above; yours is {actor.role or 'none'}")


def scope_covers(scopes: frozenset[str], needed: str) -> bool:
    """Whether a key's scopes allow `needed`; one with a `<name>` is checked again by its verb."""
    return needed in scopes or any(one in scopes or (one.endswith(":<name>") and any(scope.startswith(one[:-6]) for scope in scopes))
                                   for one in needed.split(" or "))

# ──────────────────────────────── 5  Plugin ────────────────────────────────
# Eleven verbs, one object. Every registration is inert data until `load`.

Layer = Literal["ground", "domain", "views"]


class Check(Struct):
    """What a health check found."""
    ok: bool
    detail: str = ""


class Hit(Struct):
    """One search result of one source."""
    id: int | str
    title: str
    detail: str = ""


class Plugin:
    """One folder of `plugins/`, and all that it tells the kernel about itself.

    get, post, put, patch, delete   endpoints: `@plugin.get("/things/{id}", auth=may("viewer", "things:read"))`
    command                         a command line: `@plugin.command()` over click parameters
    service                         a thread for as long as the server runs: `def watch(stop: Event)`
    job                             a handler of queued jobs, by type: `def send(payload: Letter)`
    every                           something to do again and again: `@plugin.every("5m")`
    on                              a listener, inside the writer's transaction: rows and jobs only, no network, no disk
    health                          a check: `def workspaces() -> Check`
    search                          a source: `def find(q: str, limit: int) -> list[Hit]`
    authenticator                   `def by_token(request: Request) -> Actor | None`
    watch                           told of every answer: `def note(request, status, seconds, size)`; it must not wait
    setting                         a knob and its sentence
    """

    def __init__(self, title: str, *, layer: Layer, needs: tuple[str, ...] = ()):
        self.title, self.layer, self.needs = title, layer, needs
        self.name = ""  # its folder's; `load` knows it
        self.endpoints: list[Endpoint] = []
        self.commands: list[click.Command] = []
        self.services: list[Callable[[threading.Event], None]] = []
        self.jobs: dict[str, Callable[[Any], Any]] = {}
        self.periods: list[tuple[float, Callable[[], Any]]] = []
        self.listeners: list[tuple[str, tuple[str, ...], Callable[..., Any]]] = []
        self.checks: dict[str, Callable[[], Check]] = {}
        self.sources: dict[str, Callable[[str, int], list[Hit]]] = {}
        self.authenticators: list[Callable[[Request], Actor | None]] = []
        self.watchers: list[Callable[[Request, int, float, int], None]] = []
        self.knobs: list[tuple] = []

    def _endpoint(self, method: str, path: str, **options: Any) -> Callable[[F], F]:
        return _into(lambda fn: self.endpoints.append(Endpoint(self, method, path, fn, **options)))

    get = functools.partialmethod(_endpoint, "GET")
    post = functools.partialmethod(_endpoint, "POST")
    put = functools.partialmethod(_endpoint, "PUT")
    patch = functools.partialmethod(_endpoint, "PATCH")
    delete = functools.partialmethod(_endpoint, "DELETE")

    def command(self, *args: Any, **options: Any) -> Callable[[Callable], click.Command]:
        def keep(fn: Callable) -> click.Command:
            made = click.command(*args, **options)(fn)
            self.commands.append(made)
            return made
        return keep

    def service(self, fn: F) -> F:
        return _into(self.services.append)(fn)

    def job(self, kind: str) -> Callable[[F], F]:
        return _into(lambda fn: self.jobs.__setitem__(kind, fn))

    def every(self, period: str) -> Callable[[F], F]:
        found = re.fullmatch(r"(\d+)([smhd])", period)
        assert found, f"{period!r} is no period; write 30s, 5m, 1h or 1d"
        width = int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
        return _into(lambda fn: self.periods.append((width, fn)))

    def on(self, event: str, but: tuple[str, ...] = ()) -> Callable[[F], F]:
        return _into(lambda fn: self.listeners.append((event, but, fn)))

    def health(self, name: str) -> Callable[[F], F]:
        return _into(lambda fn: self.checks.__setitem__(name, fn))

    def search(self, name: str) -> Callable[[F], F]:
        return _into(lambda fn: self.sources.__setitem__(name, fn))

    def authenticator(self, fn: F) -> F:
        return _into(self.authenticators.append)(fn)

    def watch(self, fn: F) -> F:
        return _into(self.watchers.append)(fn)

    def setting(self, name: str, type: type, default: Any, sentence: str, *, secret: bool = False) -> None:
        self.knobs.append((name, type, default, sentence, secret))


F = TypeVar("F", bound=Callable)


def _into(register: Callable[[Any], Any]) -> Callable[[F], F]:
    """A decorator that registers a function and leaves it as it is."""
    def keep(fn: F) -> F:
        register(fn)
        return fn
    return keep


_heard: dict[str, list[Callable[..., Any]]] = {}


def emit(event: str, subject: Any, **facts: Any) -> None:
    """Tell every listener of `event`, inside the write that is going on; a listener's error undoes it all."""
    listeners = _heard.get(event)
    if listeners is None:
        listeners = _heard[event] = [fn for plugin in plugins.values() for name, but, fn in plugin.listeners if not event.startswith(but)
                                     and (name in (event, "*") or (name.endswith(".*") and event.startswith(name[:-1])))]
    for listener in listeners:
        listener(event, subject, **facts)


# ─────────────────────────────── 6  Endpoint ───────────────────────────────
# Bind, call, reply. The signature says what is taken, the return type which envelope answers:
# Task → {data}, Page[Task] → {data, meta}, Deleted, Flat structs as they stand, Document as bytes.

MAX_BODY, MAX_DEPTH = 1 << 20, 32


class Deleted(Struct):
    """`{"data": {"deleted": true, "id": …}}`"""
    id: int | str


class Flat(Struct):
    """Base of answers that stand without an envelope."""


class Reply(Struct, Generic[T]):
    """An answer that needs another status, or a `meta`."""
    data: T
    status: int = 0
    meta: dict[str, Any] | None = None


class Document(Struct):
    """An answer that is no JSON."""
    body: bytes
    type: str
    headers: dict[str, str] = {}
    status: int = 200


class Request:
    """One HTTP request, as much of it as anybody reads."""
    __slots__ = ("environ", "method", "path", "id", "actor", "endpoint", "if_lost", "again", "waits")

    def __init__(self, environ: dict[str, Any]):
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "") or "/"
        asked = environ.get("HTTP_X_REQUEST_ID", "")
        self.id = asked if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", asked) else os.urandom(8).hex()
        self.actor = NOBODY
        self.endpoint: Endpoint | None = None
        self.if_lost: Callable[[], None] | None = None  # what to do where the answer does not reach its client
        self.again: Callable[[], None] = lambda: None   # has a request that waits asked once more
        self.waits: Any = None                          # what it waits for, once it does

    def header(self, name: str) -> str:
        return self.environ.get(("" if name.lower() in ("content-type", "content-length") else "HTTP_") + name.upper().replace("-", "_"), "")

    @property
    def address(self) -> str:
        return self.environ.get("REMOTE_ADDR") or "local"

    def body(self, limit: int = MAX_BODY) -> bytes:
        """The raw body; TooLarge beyond `limit` bytes."""
        length = int(self.environ.get("CONTENT_LENGTH") or 0)
        if length > limit:
            raise TooLarge(f"The body has {length} bytes; at most {limit} are accepted here")
        return self.environ["wsgi.input"].read(length) if length else b""

    def json(self, limit: int = MAX_BODY) -> bytes:
        """The body, checked to be JSON of a sane shape; `{}` where there is none."""
        raw = self.body(limit)
        if not raw.strip():
            return b"{}"
        kind = self.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise Unsupported(f"Send the body as JSON with 'Content-Type: application/json', not {kind or 'without a type'}")
        strict(raw)
        return raw


def strict(raw: bytes) -> Any:
    """Parse JSON that has no duplicate keys, no NaN, no NUL, no lone surrogates, and nests at most 32 deep."""
    try:
        found = json.loads(text := raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise Invalid("The body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Invalid(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Invalid(f"The body nests deeper than {MAX_DEPTH}") from None
    except ValueError:
        raise Invalid("The body has a number that is too long") from None
    # Only text that parsed is looked at further: its strings end, and so every look is one pass.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Invalid(f"The body nests deeper than {MAX_DEPTH}")
    if "\\u0000" in text or "\0" in text:
        raise Invalid("The body has a NUL character; remove it")
    if re.search(r"\\u[dD][89a-fA-F]", text):
        _no_lone_surrogates(found)
    return found


def _depth(text: str) -> int:
    """How deep JSON nests."""
    bare = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"', "", text)
    return max(itertools.accumulate(1 if one in "[{" else -1 for one in re.findall(r"[\[\]{}]", bare)), default=0)


def _no_lone_surrogates(found: Any) -> None:
    """Invalid, naming the field, where half of a character stands alone: no text can hold it."""
    for name, value in found.items() if isinstance(found, dict) else (("", found),):
        try:
            msgspec.json.encode((name, value))
        except UnicodeEncodeError:
            field, said = clean(name, 60), "has half of a surrogate pair"
            raise Invalid(f"{field or 'The body'}: {said}", [{"field": field, "message": said}]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = clean(next(name for name, _ in pairs if name in seen or seen.add(name)), 60)  # type: ignore[func-returns-value]
        raise Invalid(f"The key {twice!r} stands twice", [{"field": twice, "message": "stands twice"}])
    return found


def _no_constant(name: str) -> Any:
    raise Invalid(f"{name} is not JSON")


def wrong_fields(kind: Any, given: Any, *, strict: bool = True) -> list[dict[str, str]]:
    """Every field of `given` that does not fit the struct `kind`; asked only after a decoding failed."""
    if not isinstance(given, dict):
        return [{"field": "", "message": "Expected a JSON object"}]
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    wrong = [{"field": name, "message": "Unknown field" + (f"; known: {', '.join(sorted(fields))}" if fields else "")}
             for name in given if name not in fields]
    for name, one in fields.items():
        if name not in given:
            if one.required:
                wrong.append({"field": name, "message": "Required"})
            continue
        try:
            msgspec.convert(given[name], one.type, strict=strict)
        except msgspec.ValidationError as error:
            said, _, where = str(error).partition(" - at `$")
            if said.startswith("Invalid enum value") and (known := _described(one.type)):
                said = f"{said[19:70]} is none of {known}"
            elif "matching regex" in said and (known := _described(one.type)):
                said = f"Not acceptable: {known}"
            wrong.append({"field": name + where.rstrip("`") if strict else name, "message": said})
    return wrong


def _described(hint: Any) -> str:
    """What the type of a field says of itself, or the values it knows; better read than a pattern."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    if isinstance(hint, Meta):
        return hint.description or ""
    return next(filter(None, map(_described, (*typing.get_args(hint), *getattr(hint, "__metadata__", ())))), "")


def complain(kind: Any, given: Any, *, strict: bool = True) -> Invalid:
    """One Invalid that lists every wrong field."""
    wrong = wrong_fields(kind, given, strict=strict)
    said = "; ".join(f"{one['field']}: {one['message']}" if one["field"] else one["message"] for one in wrong[:5])
    return Invalid(said or "The request does not fit", wrong)


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: "_" + found[1].lower(), name)


class Endpoint:
    """One operation: a path, a policy and a function; its signature is the rest.

    `quick`: it waits for nothing but the database. A GET is answered by the server's loop: an index serves it, and its answer
    is small. Of others the whole function runs in the writer's transaction: it calls verbs, and does no more; those that
    are not `durable` wait for no flush. All else runs in a `lane`, on its threads. `once`: it takes an Idempotency-Key. `tool`: what models call it.
    """

    def __init__(self, plugin: Plugin, method: str, path: str, fn: Callable, *, auth: Policy, status: int = 200,
                 raises: tuple[int, ...] = (), limit: str = "", max_body: int = MAX_BODY, statuses: tuple[int, ...] = (), quick: bool = False,
                 durable: bool = True, lane: str = "disk", once: bool = False, tool: str = ""):
        self.plugin, self.method, self.path, self.fn, self.auth = plugin, method, path, fn, auth
        self.status, self.raises, self.limit, self.max_body = status, raises, limit, max_body
        self.quick, self.durable, self.lane, self.once, self.tool = quick, durable, lane, once, tool
        self.statuses = (status, *statuses)
        self.summary, _, self.about = map(str.strip, inspect.cleandoc(fn.__doc__ or "").partition("\n"))
        self.path_names = {snake(name): name for name in re.findall(r"\{(\w+)\}", path)}

    @property
    def operation(self) -> str:
        """What generated clients call it."""
        return f"{self.plugin.name}.{self.fn.__name__}"

    def bind(self) -> None:
        """Read the signature; a parameter that nothing fills, or a missing policy, stops the start."""
        where = f"{self.fn.__code__.co_filename}:{self.fn.__code__.co_firstlineno} ({self.operation})"
        if not isinstance(self.auth, Policy):
            raise TypeError(f"{where}: says no policy; add auth=may(...), SIGNED_IN or PUBLIC")
        if not self.summary:
            raise TypeError(f"{where}: has no docstring")
        hints = typing.get_type_hints(self.fn, include_extras=True)
        self.returns = hints.pop("return", None)
        self.body_type = hints.get("body")
        self.query_type = hints.get("query")
        asked = msgspec.structs.fields(self.query_type) if self.query_type else ()
        self.lists = {one.name for one in asked if typing.get_origin(one.type) is list}
        self.takes = list(inspect.signature(self.fn).parameters)
        self.anonymous = self.auth.public and not {"me", "request"} & set(self.takes)  # nobody is asked who they are
        self.path_types = {name: hints[name] for name in self.takes if name in self.path_names}
        if unknown := set(self.takes) - set(self.path_names) - {"body", "query", "me", "request"}:
            raise TypeError(f"{where}: nothing fills the parameter {sorted(unknown)[0]!r}")
        if missing := set(self.path_names) - set(self.takes):
            raise TypeError(f"{where}: does not take {sorted(missing)[0]!r} of its path")
        self.body_decoder = msgspec.json.Decoder(self.body_type) if self.body_type else None
        self.fills = {"body": self._body, "query": self._query, "me": lambda request: request.actor, "request": lambda request: request}

    def values(self, request: Request, path: dict[str, str]) -> dict[str, Any]:
        """What the function takes, by name: parts of the path as they are typed, and what `fills` has."""
        return {name: self._path_value(name, path[name]) if name in self.path_types else self.fills[name](request) for name in self.takes}

    def _path_value(self, name: str, text: str) -> Any:
        wire = self.path_names[name]
        text = _utf8(text, wire)
        if re.search(r"[\x00-\x1f\x7f/\\]", text) or text in (".", "..") or len(text) > 512:
            raise Invalid(f"{wire}: has characters that no {wire} has", [{"field": wire, "message": "Not acceptable"}])
        try:
            return msgspec.convert(text, self.path_types[name], strict=False)
        except msgspec.ValidationError as error:
            raise Invalid(f"{wire}: {error}", [{"field": wire, "message": str(error)}]) from None

    def _body(self, request: Request) -> Any:
        raw = request.json(self.max_body)
        assert self.body_decoder
        try:
            return self.body_decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            given = strict(raw)
            if wrong_fields(self.body_type, given):
                raise complain(self.body_type, given) from None
            raise Invalid(f"The body is not acceptable: {error}") from None

    def _query(self, request: Request) -> Any:
        given: dict[str, Any] = {}
        try:
            pairs = parse_qsl(_utf8(request.environ.get("QUERY_STRING", ""), "query"), keep_blank_values=True, errors="replace", max_num_fields=100)
        except ValueError:
            raise Invalid("The query has more than 100 fields") from None
        for name, value in pairs:
            if name in given:
                raise Invalid(f"{name}: stands twice in the query", [{"field": name, "message": "stands twice"}])
            if "\0" in value:
                raise Invalid(f"{name}: has a NUL character", [{"field": name, "message": "has a NUL character"}])
            given[name] = [word.strip() for word in value.split(",") if word.strip()] if name in self.lists else value
        try:
            return msgspec.convert(given, self.query_type, strict=False)
        except msgspec.ValidationError:
            raise complain(self.query_type, given, strict=False) from None

    def answer(self, made: Any) -> tuple[int, list[tuple[str, str]], bytes]:
        """Put what the function returned into its envelope."""
        status, meta = self.status, None
        if isinstance(made, Reply):
            status, meta, made = made.status or status, made.meta, made.data
        if isinstance(made, Document):
            return made.status, [("Content-Type", made.type), *made.headers.items()], made.body
        if isinstance(made, Page):
            meta = {"total": made.total, "limit": made.limit, "offset": made.offset,
                    "has_more": made.more, "next_after": made.next_after} | (meta or {})
            if made.exceeded:
                meta["total_exceeded"] = True
            made = made.items
        if isinstance(made, Deleted):
            made = {"deleted": True, "id": made.id}
        envelope = made if isinstance(made, Flat) else {"data": made} if meta is None else {"data": made, "meta": meta}
        return status, [("Content-Type", "application/json")], msgspec.json.encode(envelope)


def _utf8(text: str, name: str) -> str:
    try:
        return text.encode("latin-1").decode()  # WSGI hands bytes over as Latin-1
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise Invalid(f"{name}: is not UTF-8", [{"field": name, "message": "is not UTF-8"}]) from None


def clean(text: str, most: int = 200) -> str:
    """`text` for a log or a message: no control characters, not endless."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: f"\\x{ord(found[0]):02x}", text[:most])


# ─────────────────────────────── 7  Loading ────────────────────────────────

plugins: dict[str, Plugin] = {}
LAYERS: tuple[Layer, ...] = ("ground", "domain", "views")


def load() -> dict[str, Plugin]:
    """Import every file of every folder of `plugins/`, lower layers first, and take in what they registered. Idempotent."""
    if plugins:
        return plugins
    for one in pkgutil.iter_modules(importlib.import_module("plugins").__path__):
        importlib.import_module(f"plugins.{one.name}").plugin.name = one.name
    found = [module.plugin for name, module in sys.modules.items() if re.fullmatch(r"plugins\.\w+", name)]
    for plugin in sorted(found, key=lambda plugin: (LAYERS.index(plugin.layer), plugin.name)):
        for file in pkgutil.iter_modules([str(Path(HOME, "plugins", plugin.name))]):
            importlib.import_module(f"plugins.{plugin.name}.{file.name}")
        plugins[plugin.name] = plugin
        for knob in plugin.knobs:
            settings.declare(*knob)
    _heard.clear()
    return plugins


def endpoints() -> list[Endpoint]:
    return [endpoint for plugin in plugins.values() for endpoint in plugin.endpoints]


# ──────────────────────── 8  Services and shutdown ────────────────────────

stopping = threading.Event()  # set once the server is told to end
restarted: dict[str, tuple[float, float]] = {}  # a service that stopped by itself → when it began again, and after what pause
_threads: list[threading.Thread] = []


def start_services() -> None:
    """One thread for every service, and one that keeps time for `every`; from now on, writes need free disk."""
    stopping.clear()
    db.min_free = settings.min_free_mb << 20
    for plugin in plugins.values():
        for service in plugin.services:
            _thread(f"{plugin.name}.{service.__name__}", service)
    _thread("every", _keep_time)


def _thread(name: str, run: Callable[[threading.Event], None]) -> None:
    def forever() -> None:
        began, pause = time.monotonic(), 0.5
        here.actor = system()
        while not stopping.is_set():
            try:
                return run(stopping)
            except Problem as problem:
                log.error("service %s stopped: %s; again within %.0f s", name, problem.message, min(pause * 2, 60))
            except Exception:
                log.exception("service %s failed; again within %.0f s", name, min(pause * 2, 60))
            pause = 1.0 if time.monotonic() - began > 120 else min(pause * 2, 60)  # one that ran well is not like one that never does
            stopping.wait(pause)
            restarted[name] = began, pause = time.monotonic(), pause
    _threads.append(threading.Thread(target=forever, name=name, daemon=True))
    _threads[-1].start()


def _keep_time(stop: threading.Event) -> None:
    periods = [period for plugin in plugins.values() for period in plugin.periods]
    due = [time.monotonic() + min(width, 5) for width, _ in periods]
    while due and not stop.wait(max(0.0, min(due) - time.monotonic())):
        for at, (width, fn) in enumerate(periods):
            if due[at] <= time.monotonic():
                due[at] = time.monotonic() + width
                try:
                    fn()
                except Problem as problem:
                    log.error("periodic %s: %s", fn.__qualname__, problem.message)
                except Exception:
                    log.exception("periodic %s failed", fn.__qualname__)


def stop_services(patience: float = 10.0) -> None:
    """Tell every service to stop, and wait for them together `patience` seconds."""
    stopping.set()
    end = time.monotonic() + patience
    for thread in _threads:
        thread.join(max(0.1, end - time.monotonic()))
    _threads.clear()

# ──────────────────────────── 9  Command line ──────────────────────────────


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="orkosi")
def cli() -> None:
    """Orkosi: the operating system of a company whose staff are AI agents."""


DATA = click.option("--data", type=click.Path(path_type=Path), help="The data folder; default: data beside orkosi.py")


def main() -> int:  # type: ignore[no-redef]  # the one above is this one, imported
    """Run the command line; a problem is one sentence and an exit code that is not 0."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.umask(0o077)  # whatever this process makes, nobody else reads
    load()
    gc.freeze()
    gc.enable()
    for command in [one for plugin in plugins.values() for one in plugin.commands]:
        cli.add_command(command)
    try:
        cli(prog_name="orkosi")
    except Problem as problem:
        click.echo(f"orkosi: {problem.message}", err=True)
        return problem.exit_code
    return 0
