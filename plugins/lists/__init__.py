"""Lists: pages of rows that grow, asked for by number (`offset`) or from where the last page ended (`after`).

Owns no table. A cursor is what the last row of a page is sorted by, signed: whoever goes on from it meets every row that was there,
once, whatever was added or taken away meanwhile, and a page far down costs no more than the first.
Surprise: a list is data, not a query. Its predicates are constant text, and only those that a request asks for are joined, so that
the tests can hand every list to EXPLAIN.
"""
import hashlib
import operator
import re
import time
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Container, Iterable
from functools import cache, cached_property, lru_cache
from typing import Any, TypeVar

import msgspec
from itsdangerous import BadData, Signer

from orkosi import COUNTED, Page, Paging, Plugin, Struct, current, db, jsoned
from plugins import signing
from plugins.fields import wrong

plugin = Plugin("Lists", layer="ground", needs=("signing", "fields"))
T = TypeVar("T")

MOST_WRITTEN = 200  # statements of one list that are kept: whoever asks for every set of filters fills no memory
LATER = {False: ">", True: "<"}  # where the next row stands, by whether the order descends


def before_large(size: int) -> None:
    """Told what a page weighs before it is read; the server puts its own in this place, which may wait, or raise."""


class Key(Struct, frozen=True):
    """One thing that a list is sorted by: the SQL, the column whose value decides, and which way."""
    sql: str
    column: str
    descends: bool

    @property
    def field(self) -> str:
        """The field of a row that has the column's value."""
        name = self.column.rpartition(".")[2]
        return "id" if name == "rowid" else name

    @property
    def plain(self) -> bool:
        """Whether it is sorted by the column itself."""
        return self.sql.removesuffix(" COLLATE NOCASE") == self.column


class Listing(Struct, frozen=True, kw_only=True, dict=True):
    """A list over a table that grows. `(:x IS NULL OR col = :x)` never uses an index; here what is not asked for is not there."""
    of: type
    columns: str = "*"
    source: str
    base: str = "tenant_id = :tenant"
    filters: dict[str, str] = {}
    order: str = "id DESC"  # the last of it tells any two rows apart
    orders: dict[str, str] = {}  # another order, and so another index, where that filter is given
    computed: dict[str, str] = {}  # of what it is sorted by that is no column: the column that it is computed from
    heavy: str = ""  # what a row may weigh, as SQL, where rows can be large
    light: int = 0   # so many rows are never too much
    few: bool = False  # there are so few that they may be sorted, or all be looked at

    def order_for(self, given: Container[str]) -> str:
        """What it is sorted by, where these filters are given."""
        return next((self.orders[name] for name in self.filters if name in given and name in self.orders), self.order)

    def sql(self, given: Iterable[str], several: Iterable[str] = (), after: list[Any] | None = None) -> tuple[str, str, str]:
        """The statements for the rows, for their number, and for their weight; a filter in `several` has a JSON list of values.
        `after`: only the rows behind the one that is sorted by these values, which are bound as :after_0 and so on."""
        asked = (tuple(given), frozenset(several), after and tuple(value is None for value in after))
        found = self.written.get(asked)
        if found is None:
            if len(self.written) >= MOST_WRITTEN:
                self.written.clear()
            found = self.written[asked] = self._write(set(asked[0]), asked[1], after)
        return found

    @cached_property
    def written(self) -> dict[Any, tuple[str, str, str]]:
        """Statements that were asked for: to write them takes longer than many a list to be read."""
        return {}

    def _write(self, given: set[str], several: Container[str], after: list[Any] | None) -> tuple[str, str, str]:
        names = [name for name in self.filters if name in given]
        # `+column` keeps SQLite from an index that would have to sort: the rows are found by walking along the order.
        where = " AND ".join([self.base, *(re.sub(rf"^\+?(\S+) = (:{name})$", r"+\1 IN (SELECT value FROM json_each(\2))", self.filters[name])
                                           if name in several else self.filters[name] for name in names)])
        order = self.order_for(names)
        behind = "" if after is None else " AND " + _behind(self.keys[order], after)
        which = f"FROM {self.source} WHERE {where}{behind} ORDER BY {order} LIMIT :limit OFFSET :offset"
        return (f"SELECT {self.columns} {which}",
                f"SELECT count(*) FROM (SELECT 1 FROM {self.source} WHERE {where} LIMIT {COUNTED + 1})",
                f"SELECT sum(weight) FROM (SELECT {self.heavy or 0} AS weight {which})")

    @cached_property
    def keys(self) -> dict[str, list[Key]]:
        """What each of its orders consists of."""
        return {order: [self._key(term.strip()) for term in re.split(r",(?![^(]*\))", order)] for order in (self.order, *self.orders.values())}

    def _key(self, term: str) -> Key:
        descends = term.endswith(" DESC")
        sql = term.removesuffix(" DESC")
        return Key(sql, self.computed.get(sql, sql.removesuffix(" COLLATE NOCASE")), descends)

    @cached_property
    def values(self) -> dict[str, Callable[[Any], tuple[Any, ...]]]:
        """For each order, how to have what a row is sorted by."""
        return {order: _values([key.field for key in keys]) for order, keys in self.keys.items()}

    @cached_property
    def marks(self) -> dict[str, int]:
        """A number for each order, by which a cursor is known to be of this list."""
        return {order: zlib.crc32(f"{self.source} {order}".encode()) for order in self.keys}


def _values(fields: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    pick: Callable[[Any], Any] = operator.attrgetter(*fields)
    return pick if len(fields) > 1 else lambda row: (pick(row),)


def _behind(keys: list[Key], after: list[Any]) -> str:
    """Which rows come after the one with these values: a row value where an index can seek by it, else one term for each key."""
    marks = [f":after_{at}" for at in range(len(keys))]
    if len(keys) > 1 and all(key.plain for key in keys) and len({key.descends for key in keys}) == 1 and None not in after:
        return f"({', '.join(key.sql for key in keys)}) {LATER[keys[0].descends]} ({', '.join(marks)})"
    found = ""
    for key, mark, value in reversed(list(zip(keys, marks, after, strict=True))):
        bound = mark if key.plain else key.sql.replace(key.column, mark)
        further = f"{key.sql} {LATER[key.descends]} {bound}" if value is not None else "FALSE" if key.descends else f"{key.sql} IS NOT NULL"
        same = f"{key.sql} = {bound}" if value is not None else f"{key.sql} IS NULL"
        found = f"({further} OR ({same} AND {found}))" if found else further
    return found


# ── pages ──


def page(listing: Listing | list[T], query: Paging, by: str = "", /, **params: Any) -> Page[Any]:
    """One page of `listing`, with those of its filters that the query, or `params`, gives a value. Invalid where its cursor is of another list.

    A list that is short enough to be whole in memory is one, too: sorted by the field `by`, or by `-by` downwards, which tells any two apart.
    """
    if not isinstance(listing, Listing):
        return _cut(listing, query, by)
    asked, several = _asked(query, params)
    order = listing.orders and listing.order_for(asked) or listing.order
    after = _opened(query, listing.marks[order], len(listing.keys[order])) if query.after else None
    rows_sql, count_sql, weight_sql = listing.sql(asked, several, after)
    behind = {f"after_{at}": value for at, value in enumerate(after or ())}
    if listing.heavy and query.limit > listing.light:
        before_large(db.value(weight_sql, **asked, **behind) or 0)
    if after is None:
        rows = db.all(listing.of, rows_sql, **asked)
        known = len(rows) < query.limit and (rows or not query.offset)  # the last page knows the total without counting
        total = query.offset + len(rows) if known else _total(count_sql, asked)
        more = query.offset + len(rows) < total
    else:
        rows = db.all(listing.of, rows_sql, **asked | {"limit": query.limit + 1}, **behind)
        more, rows, total = len(rows) > query.limit, rows[:query.limit], _total(count_sql, asked)
    found = Page(rows, min(total, COUNTED), query.limit, query.offset, total > COUNTED, more)
    if more and rows:
        found.next_after = _sealed(listing.marks[order], listing.values[order](rows[-1]))
    return found


def _asked(query: Paging, params: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a list is asked for, by name, and which of that has several values: these are a JSON list."""
    asked, several = {}, []
    for name, value in [*[(name, getattr(query, name)) for name in query.__struct_fields__ if name not in params], *params.items()]:
        if isinstance(value, list):
            if len(value) > 1:
                several.append(name)
            if value:
                asked[name] = jsoned(value) if len(value) > 1 else value[0]
        elif value is not None and name != "after":
            asked[name] = value
    return asked, several


def _cut(items: list[T], query: Paging, field: str) -> Page[T]:
    mark, comes_later = zlib.crc32(field.encode()), operator.lt if field.startswith("-") else operator.gt
    first, field = query.offset, field.removeprefix("-")
    if query.after:
        name, = _opened(query, mark, 1)
        first = next((at for at, item in enumerate(items) if comes_later(getattr(item, field), name)), len(items))
    found = items[first:first + query.limit]
    more = first + len(found) < len(items)
    return Page(found, len(items), query.limit, query.offset, False, more, _sealed(mark, (getattr(found[-1], field),)) if more and found else None)


_totals: dict[Any, tuple[int, float, int]] = {}


def _total(sql: str, asked: dict[str, Any]) -> int:
    """A list's count, remembered until this process commits anything, and for a second at most: another may, too."""
    key = (sql, current().tenant, *asked.items())
    commits, until, total = _totals.get(key, (-1, 0.0, 0))
    if commits != db.commits or until < time.monotonic():
        commits = db.commits
        total = db.value(sql, **asked)
        if len(_totals) > 1000:
            _totals.clear()
        _totals[key] = (commits, time.monotonic() + 1, total)
    return total


# ── cursors ──


@plugin.on("opened")
def begin(event: str, folder: object) -> None:
    """Know nothing of another data folder: neither its secret, nor what was counted there."""
    _totals.clear()
    _signer.cache_clear()
    _sealed.cache_clear()


@cache
def _signer() -> Signer:
    return Signer(signing.secret("cursors"), salt=b"", key_derivation="none", digest_method=hashlib.sha256)


@lru_cache(maxsize=1000)
def _sealed(mark: int, values: tuple[Any, ...]) -> str:
    return _signer().sign(urlsafe_b64encode(msgspec.json.encode((mark, *values))).rstrip(b"=")).decode()


def _opened(query: Paging, mark: int, many: int) -> list[Any]:
    """The values that a cursor of this list holds. Invalid."""
    if query.offset:
        raise wrong("after", "Send `after` or `offset`, not both: a cursor goes on from where its page ended")
    try:
        raw = _signer().unsign(query.after)
        found = msgspec.json.decode(urlsafe_b64decode(raw + b"=" * (-len(raw) % 4)))
    except (BadData, ValueError):
        raise wrong("after", "That is no cursor of this server; send `meta.next_after` of a page as it came, or leave it out to begin") from None
    if found[0] != mark or len(found) != many + 1:
        raise wrong("after", "That cursor is of another list, or of another order of this one; leave it out to begin")
    values: list[Any] = found[1:]
    return values
