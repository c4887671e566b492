"""Bull: the task queue, as programs made for BullMQ know it.

Owns no table: what is asked here is done by the verbs of the queue and of schedules. Jobs are the same jobs, whichever way they came.

What BullMQ (5) does, and what is done here:

| matter | BullMQ | here | why, where it differs |
|---|---|---|---|
| order | by priority, 0 before 1, and then as they came | the same | |
| priority | 0 to 2,097,151 | the same; lower ones, given at /api/task-queue, go first and count as waiting | |
| attempts | 1 unless said; `attempts_made` counts those that ended | the same | |
| an attempt that is to be made again at once | goes to the end of its queue | to the head, among its equals | a job keeps its place |
| back-off | a number is fixed ms; exponential is 2^(made - 1) times | the same, a day at most | none waits for years |
| none given | tried again at once | the same | |
| `delay` | ms; shown for good in `opts` | shown while it is delayed | what is over says nothing |
| `job_id` | digits alone and colons are refused; given twice, it is the first job | the same, and no slashes | it is part of an address |
| clean | of a state, older than `grace` ms, so many, oldest first | the same; never what is active, or of a schedule | those have ends of their own |
| retried | `attempts_made` goes on, and it has what is left, or one more | all attempts anew; why it failed is shown until it ends | it was seen to |
| retry all | of failed or completed ones | of failed ones | what is completed, is done |
| removed and given again | a new job | the same | |
| pause | waiting ones are `paused`, prioritized ones stay | the same; no job of either begins | |
| failed | all that will not be tried again | `failed`, `dead` and `cancelled` of here together | |
| `repeat`, `every` | one job scheduler of a name; one pending job | the same; what passes meanwhile is counted as missed | nothing is silent |
| the next of a schedule | planned when this one begins | when it has ended | two of one kind would get into each other's way |
| `start`, `end` | inclusive, negative ones from the end | the same, at most 200 and 8 MB | an answer has an end |
| stalled | found by the next check, moved back, and failed after one more time | its lease runs out: the attempt counts | a lease says when |
"""
from typing import Any, Literal

from orkosi import Conflict, Denied, NotFound, Plugin, Struct, current, db, seconds, writes
from plugins import queue, schedules
from plugins.fields import wrong
from plugins.queue import HEAVY, Job

plugin = Plugin("Queue as BullMQ has it", layer="domain", needs=("queue", "schedules"))

Seen = Literal["waiting", "active", "completed", "failed", "delayed", "paused", "prioritized"]
MOST, WEIGHT = 200, 8 << 20  # jobs, and bytes of them, that one answer has
OVER = ("failed", "dead", "cancelled")

_OF = "tenant_id = :tenant AND queue = :queue"
# Literals, so that each walks one partial index.
_ONES = {"waiting": (f"{_OF} AND state = 'waiting' AND priority <= 0", "priority, id"),
         "prioritized": (f"{_OF} AND state = 'waiting' AND priority > 0", "priority, id"),
         "delayed": (f"{_OF} AND state = 'delayed'", "run_at, id"),
         "active": (f"{_OF} AND state = 'active' AND lease_expires_at > ''", "claimed_at, id"),
         "completed": (f"{_OF} AND state = 'completed' AND finished_at IS NOT NULL", "finished_at DESC, id DESC"),
         "": (_OF, "id DESC")}
_RANGES = {status: f"SELECT id, {HEAVY} FROM jobs WHERE {where} ORDER BY {order} LIMIT :many OFFSET :start"
           for status, (where, order) in _ONES.items()}
# Three states are one here. Each is in order by itself, and gives no more than may be shown: all of them together would have to be sorted.
_ENDS = [f"{_OF} AND state = '{state}' AND finished_at IS NOT NULL" for state in OVER]
_RANGES["failed"] = f"""
    SELECT jobs.id, {HEAVY} FROM jobs WHERE tenant_id = :tenant AND id IN (SELECT id FROM ({" UNION ALL ".join(
        f"SELECT id, finished_at FROM (SELECT id, finished_at FROM jobs WHERE {where} ORDER BY finished_at DESC, id DESC LIMIT :reach) AS s{number}"
        for number, where in enumerate(_ENDS))}) AS s ORDER BY finished_at DESC, id DESC LIMIT :many OFFSET :start)
     ORDER BY finished_at DESC, id DESC"""


class Backoff(Struct, forbid_unknown_fields=True):
    """How long until the next attempt: so many ms each time, or 2^(attempts made - 1) times as many."""
    type: Literal["fixed", "exponential"] = "fixed"
    delay: int = 0


class Opts(Struct):
    """What a job was submitted with. `delay`: in ms, while it is delayed."""
    priority: int
    attempts: int
    backoff: Backoff | None
    delay: int


class BullJob(Struct):
    """A job. Times are in ms since 1970; `attempts_made` counts attempts that ended."""
    id: str
    name: str
    data: Any
    opts: Opts
    state: Seen
    progress: Any
    attempts_made: int
    failed_reason: str | None
    return_value: Any
    timestamp: int
    processed_on: int | None
    finished_on: int | None


class BullStats(Struct):
    """A queue, counted. `at_least` names the counts that stopped at 10,000."""
    queue: str
    is_paused: bool
    counts: dict[str, int]
    schedules: int
    oldest_waiting_seconds: int | None
    at_least: list[str]


# ── as BullMQ says it ──


def seen(job: Job, stopped: bool) -> BullJob:
    """A job; `stopped`: its queue is paused."""
    ended = job.attempt - (job.state == "active")
    delay = max(0, (ms(job.run_at) or 0) - (ms(job.created_at) or 0)) if job.state == "delayed" and not job.attempt else 0
    backoff = Backoff(job.backoff_kind, job.backoff_ms) if job.backoff_ms else None  # type: ignore[arg-type]
    return BullJob(name_of(job), job.task_type, job.payload, Opts(job.priority, job.max_attempts, backoff, delay), state_of(job, stopped),
                   0 if job.progress is None else job.progress, ended, "It was cancelled" if job.state == "cancelled" else job.error, job.result,
                   ms(job.created_at) or 0, ms(job.claimed_at), ms(job.finished_at))


def state_of(job: Job, stopped: bool) -> Seen:
    """What BullMQ calls the state of a job."""
    if job.state == "waiting":
        return "prioritized" if job.priority > 0 else "paused" if stopped else "waiting"
    return "failed" if job.state in OVER else job.state  # type: ignore[return-value]


def name_of(job: Job) -> str:
    """The id by which it is known here: its own, where it was given one, or its number."""
    return job.idempotency_key if job.idempotency_key and is_id(job.idempotency_key) else str(job.id)


def is_id(text: str) -> bool:
    """Whether a job may be called so: no digits alone, which are numbers, no colon, and nothing that an address cannot hold."""
    return bool(text) and ":" not in text and not (text.isascii() and text.isdigit()) and text.isprintable() and in_path(text)


def in_path(text: str) -> bool:
    """Whether a name can be one part of an address."""
    return "/" not in text and text not in (".", "..")


def ms(moment: str | None) -> int | None:
    """A time as ms since 1970."""
    return None if moment is None else round(seconds(moment) * 1000)


# ── finding ──


def named(name: str) -> str:
    """A queue that was named from outside. Invalid where BullMQ would not have it, or it is the server's own; Denied for another agent's."""
    if ":" in name:
        raise wrong("queue", "A queue's name has no colon here; queues of agents are at /api/task-queue")
    if name in queue.OWNS and current().kind != "system":
        raise wrong("queue", f"{name!r} is the server's own; choose another")
    return queue.named(name)


def find(name: str, id: str) -> Job:
    """A job of a queue by its id or number. NotFound."""
    column, value = ("id", int(id)) if id.isascii() and id.isdigit() and len(id) < 19 else ("idempotency_key", id)
    job = db.one(Job, f"SELECT * FROM jobs WHERE {_OF} AND {column} = :value", queue=named(name), value=value)
    if job is None:
        raise NotFound(f"There is no job {id[:100]} in queue {name}")
    found: Job = job
    return found


def stats(name: str) -> BullStats:
    """A queue, counted; zeros for one that nobody has used."""
    of = queue.stats(name)
    first = _count("prioritized", name)
    plain = of.counts["waiting"] - first
    counts = {"waiting": 0 if of.paused else plain, "active": of.counts["active"], "completed": of.counts["completed"],
              "failed": sum(of.counts[state] for state in OVER), "delayed": of.counts["delayed"], "paused": plain if of.paused else 0,
              "prioritized": first}
    age = None if of.oldest_waiting_at is None else max(0, int(seconds(queue.now()) - seconds(of.oldest_waiting_at)))
    planned = db.value("SELECT count(*) FROM schedules WHERE tenant_id = :tenant AND queue = :queue", queue=name)
    return BullStats(name, of.paused, counts, planned, age, sorted({"failed" if one in OVER else one for one in of.at_least}))


def _count(which: str, name: str) -> int:
    return sum(db.value(f"SELECT count(*) FROM jobs WHERE {where}", queue=name) for where in (_ENDS if which == "failed" else [_ONES[which][0]]))


def names() -> list[str]:
    """The queues that are seen here: those with jobs, with schedules, or paused."""
    planned = set() if current().kind == "agent" else {
        name for name, in db.all(tuple, "SELECT DISTINCT queue FROM schedules WHERE tenant_id = :tenant")}
    return sorted(name for name in {*queue.names(), *planned} - set(queue.OWNS) if ":" not in name)


def range_of(name: str, status: Seen | None, start: int, end: int) -> tuple[list[Job], bool, int, int, bool]:
    """The jobs from the start-th to the end-th, both with them; negative ones count from the last. Also whether the queue is paused, where
    the range begins and ends, and whether it was cut: at 200 jobs, or before the one with which they would be over 8 MB."""
    stopped = queue.paused(name)
    if status == ("waiting" if stopped else "paused"):
        return [], stopped, max(start, 0), max(start, 0) - 1, False
    which = "waiting" if status == "paused" else status or ""
    if start < 0 or end < -1:
        total = _count(which, name)
        start, end = max(0, total + start) if start < 0 else start, total + end if end < -1 else end
    many = MOST + 1 if end == -1 else max(0, min(end - start + 1, MOST + 1))
    weights = db.all(tuple, _RANGES[which], queue=name, many=many, start=start, **({"reach": start + many} if which == "failed" else {}))
    fit = total = 0
    for _, weight in weights[:MOST]:
        total += weight
        if fit and total > WEIGHT:
            break
        fit += 1
    jobs = [job for id, _ in weights[:fit] if (job := db.one(Job, f"SELECT * FROM jobs WHERE {_OF} AND id = :id", queue=name, id=id))]
    return jobs, stopped, start, start + fit - 1, fit < len(weights)


def require_no_agent() -> None:
    """Denied for the key of an agent: schedules are of queues that it does not see."""
    if current().kind == "agent":
        raise Denied("An agent's key sees the jobs of its own queue alone, and no schedules")


def schedule_of(name: str) -> "schedules.Schedule":
    """The one schedule of a name, in whatever queue. NotFound, Conflict where several queues have one."""
    found = db.all(tuple, "SELECT queue FROM schedules WHERE tenant_id = :tenant AND name = :name AND queue <> 'orkosi' ORDER BY queue", name=name)
    if len(found) > 1:
        raise Conflict(f"Several queues have a schedule {name!r}: {', '.join(queue for queue, in found)}; say which, with ?queue=")
    if not found:
        raise NotFound(f"There is no schedule {name!r}")
    return schedules.find(found[0][0], name)


# ── many at once ──

_CLEANED = {
    "completed": [f"{_OF} AND state = 'completed' AND finished_at IS NOT NULL AND finished_at <= :before ORDER BY finished_at"],
    "failed": [f"{end} AND finished_at <= :before ORDER BY finished_at" for end in _ENDS],
    **{status: [f"{_ONES[status][0]} AND schedule IS NULL AND created_at <= :before ORDER BY id"]
       for status in ("waiting", "prioritized", "delayed")}}
_CLEANS = {status: [f"SELECT ifnull(finished_at, created_at), id FROM jobs WHERE {where} LIMIT :most" for where in wheres]
           for status, wheres in _CLEANED.items()}


def _oldest(name: str, status: str, before: str, most: int) -> list[int]:
    """The oldest jobs of a status of this face, which may be several of the queue's own."""
    found = [row for sql in _CLEANS[status] for row in db.all(tuple, sql, queue=name, before=before, most=most)]
    return [id for _, id in sorted(found)[:most]]


@writes
def clean(name: str, status: str, grace: int, limit: int) -> list[str]:
    """Take away jobs of a status that are older than `grace` ms, the oldest first; their ids. Those of schedules, which are pending, stay."""
    found = _oldest(name, "waiting" if status == "paused" else status, queue.now(-grace / 1000), limit)
    return [name_of(queue.remove(id)) for id in found]


@writes
def retry_all(name: str, count: int, before: str) -> int:
    """Run failed jobs again that failed up to a moment, the oldest first, with all their attempts; how many."""
    found = _oldest(name, "failed", before, count)
    for id in found:
        queue.retry(id)
    return len(found)
