"""Queue: durable jobs with leases, in one table.

DESIGN

A job is one row of `jobs`. Its state says who may move it next:

    waiting ──claim──▶ active ──complete──▶ completed
       ▲  ▲              │ ├──fail, not retryable──▶ failed
       │  └──release─────┤ ├──fail or lease over, attempts exhausted──▶ dead
       │                 │ └──cancel──▶ cancelled        (waiting and delayed, too)
    delayed ◀──fail──────┘
       (due, or no longer held)

Who moves a row. Callers submit and cancel. Workers claim, and whoever holds the `lease_token`
of the claim completes, fails, releases or extends. The sweeper makes delayed jobs waiting when
they are due, and takes back jobs whose lease ran out. Nobody else writes here.

Order. Lower priority number first, then the lower id: first in, first out. A job that comes
back keeps its id, and with it its place - at the head, among its equals.

What a crash leaves. A claim is one transaction in the writer thread, so two workers never get
one job; SQLite needs no SKIP LOCKED, for there is one writer. A worker that dies leaves an
active row whose lease runs out; the sweeper puts it back, and the attempt counts. A worker
that was merely slow finds its token replaced: its completion is 409 and changes nothing, so a
job completes exactly once, though its work may have been done twice. A server that dies loses
nothing that was acknowledged: submit, complete and fail are on the disk before they answer;
claims, heartbeats and releases survive a kill, and a power cut may only undo them.

Whose. The server's own queues, OWNS, nobody outside can name, nor a job of them. An agent's key sees and moves the jobs of its queue alone.
"""
import threading
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from orkosi import Conflict, Denied, Meta, NotFound, Plugin, Problem, Struct, current, db, emit, jsoned, now, seconds, writes
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.tenants import shares

plugin = Plugin("Queue", layer="ground", needs=("tenants", "server", "signing", "fields", "lists", "findings"))
plugin.setting("keep_completed_days", int, 7, "For how many days completed jobs are kept")
plugin.setting("keep_failed_days", int, 30, "For how many days failed, cancelled and dead jobs are kept")

State = Literal["waiting", "delayed", "active", "completed", "failed", "cancelled", "dead"]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._:-]{0,99}\Z", description="Letters, digits and . _ : -")]
UNFINISHED = ("waiting", "delayed", "active")
OWN, OUTSIDE = "orkosi", "orkosi outside"  # the server's own queues: letters to be sent lie there; the other waits for what is not of this machine
OWNS = (OWN, OUTSIDE)
MAX_PAYLOAD = 256 << 10
BATCH = 4 << 20     # bytes of payloads that one claim hands out, if more than one
_polled: dict[tuple[int | None, str], float] = {}  # (tenant, queue) → when somebody last claimed there


class LeaseLost(Conflict):
    """The lease token never was, or is no longer, the job's: somebody else has it, or it is finished."""
    code = "lease_lost"


class Job(Struct):
    """A row of `jobs`."""
    id: int
    tenant_id: int
    queue: str
    task_type: str
    payload: Any
    priority: int
    state: State
    attempt: int
    max_attempts: int
    backoff_kind: str
    backoff_ms: int
    timeout_seconds: int
    idempotency_key: str | None = None
    run_at: str | None = None
    lease_token: str | None = None
    lease_expires_at: str | None = None
    worker_id: str | None = None
    progress: Any = None
    result: Any = None
    error: str | None = None
    held_for: str | None = None
    schedule: str | None = None
    tokens_used: int = 0
    deferrals: int = 0
    deferred_since: str | None = None
    created_at: str = ""
    claimed_at: str | None = None
    finished_at: str | None = None
    heard_at: str | None = None


class Why(Struct):
    """One reason why something is not running."""
    code: str
    sentence: str


HEAVY = "octet_length(payload) + ifnull(octet_length(result), 0) + ifnull(octet_length(progress), 0)"
OTHERS = f"tenant_id = :tenant AND queue <> '{OWN}' AND queue <> '{OUTSIDE}'"
JOBS = Listing(of=Job, source="jobs", base=OTHERS, heavy=HEAVY, filters={"queue_name": "queue = :queue_name", "task_type": "task_type = :task_type"})


def _in(state: str, order: str, queue: str = "queue") -> Listing:
    """The jobs of one state. It stands there as a literal: only then does SQLite see that a partial index holds the rows;
    a `+` keeps it from another index, after which it would have to sort."""
    over = "" if state in UNFINISHED else " AND finished_at IS NOT NULL"
    return Listing(of=Job, source="jobs", base=f"{OTHERS} AND state = '{state}'{over}", order=order, heavy=HEAVY,
                   filters={"queue_name": f"{queue} = :queue_name", "task_type": "+task_type = :task_type"})


# Unfinished jobs as they will run, finished ones newest first.
WAITING = _in("waiting", "queue, priority, id")
DELAYED = _in("delayed", "queue, run_at, id")
ACTIVE = _in("active", "lease_expires_at, id", "+queue")
COMPLETED, FAILED, CANCELLED, DEAD = (_in(state, "finished_at DESC, id DESC") for state in ("completed", "failed", "cancelled", "dead"))
BY_STATE = {"waiting": WAITING, "delayed": DELAYED, "active": ACTIVE, "completed": COMPLETED, "failed": FAILED,
            "cancelled": CANCELLED, "dead": DEAD}


def iso(moment: float) -> str:
    """A moment, in seconds since the epoch, as times are written here."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:23] + "Z"


# ── submitting ──


def require_small(payload: Any, field: str) -> None:
    """Invalid where a payload weighs more than 256 KiB of JSON; `field` is what it was sent as."""
    if len(msgspec.json.encode(payload)) > MAX_PAYLOAD:
        raise wrong(field, f"At most {MAX_PAYLOAD >> 10} KiB; put large things into a file and name it here")


@writes(single=True)
def submit(queue: str, task_type: str, payload: Any = None, *, priority: int = 0, max_attempts: int = 3, timeout: int = 300,
           key: str | None = None, backoff: tuple[str, int] = ("exponential", 5000), run_at: str | None = None,
           delay: float = 0.0, held_for: str | None = None, schedule: str | None = None) -> tuple[Job, bool]:
    """Put a job into a queue; the job, and whether it was there already under `key`.

    `run_at`, or `delay` in seconds from `created_at` on, delays it; `held_for` (a sentence) holds it until `unhold`; `timeout` is the lease in
    seconds, `backoff` its kind and ms.
    """
    made = now()
    run_at = iso(seconds(made) + delay) if delay else run_at
    state: State = "delayed" if held_for or (run_at and run_at > made) else "waiting"
    text = jsoned({} if payload is None else payload)
    shares.require(jobs=1, rows=1, bytes=len(text))
    due = run_at if state == "delayed" else None
    # Not RETURNING: its temporary table costs more than the row. The row is known anyhow.
    id = db.add("""
        INSERT INTO jobs (tenant_id, queue, task_type, payload, priority, state, max_attempts, backoff_kind, backoff_ms,
                          timeout_seconds, idempotency_key, run_at, held_for, schedule, created_at)
        VALUES (:tenant, :queue, :task_type, :payload, :priority, :state, :max_attempts, :backoff_kind, :backoff_ms,
                :timeout, :key, :run_at, :held_for, :schedule, :now)
        ON CONFLICT DO NOTHING""",
        queue=queue, task_type=task_type, payload=text, priority=priority, state=state, max_attempts=max_attempts,
        backoff_kind=backoff[0], backoff_ms=backoff[1], timeout=timeout, key=key, run_at=due, held_for=held_for,
        schedule=schedule, now=made)
    if id is None:
        return db.one(Job, "SELECT * FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND idempotency_key = :key",
                      queue=queue, key=key), True
    job = Job(id=id, tenant_id=current().tenant or 0, queue=queue, task_type=task_type, payload=payload, priority=priority, state=state,
              attempt=0, max_attempts=max_attempts, backoff_kind=backoff[0], backoff_ms=backoff[1], timeout_seconds=timeout,
              idempotency_key=key, run_at=due, held_for=held_for, schedule=schedule, created_at=made)
    _ready(job)
    return job, False


def _ready(job: Job) -> None:
    """After the commit, wake whoever waits for `job`; inside a write."""
    if job.state == "waiting":
        if waiting.anybody((job.tenant_id, job.queue)):
            db.after_commit(lambda: waiting.wake(job.tenant_id, job.queue, job.task_type))
    else:
        db.after_commit(_sooner.set)


# ── working ──


@writes(durable=False)
def claim(queue: str, worker: str, *, task_type: str | None = None, batch: int = 1) -> list[Job]:
    """Lease up to `batch` waiting jobs to `worker`, in order; none while the queue is paused."""
    return _claim(queue, worker, task_type, batch)


def _claim(queue: str, worker: str, task_type: str | None = None, batch: int = 1) -> list[Job]:
    # Two statements a job: one UPDATE over a subquery, RETURNING *, takes three times as long.
    _polled[current().tenant, queue] = time.monotonic()
    batch = 0 if shut(queue) else batch if batch <= 16 else _that_fit(queue, task_type, batch)
    jobs = db.all(Job, NEXT_OF_TYPE if task_type else NEXT, queue=queue, task_type=task_type, batch=batch)
    moment, ends = now(), {seconds: now(seconds) for seconds in {job.timeout_seconds for job in jobs}}
    for job in jobs:
        job.state, job.attempt, job.progress = "active", job.attempt + 1, None
        job.worker_id, job.claimed_at = worker, moment
        job.lease_token, job.lease_expires_at = leases.token(job.id), ends[job.timeout_seconds]
    db.run_many(LEASE, [{"id": job.id, "tenant": job.tenant_id, "worker": worker, "now": moment, "token": job.lease_token,
                         "until": job.lease_expires_at} for job in jobs])
    for job in jobs:
        emit("job.claimed", job)
    return jobs


LEASE = """UPDATE jobs SET state = 'active', attempt = attempt + 1, progress = NULL, worker_id = :worker, claimed_at = :now,
                  lease_token = :token, lease_expires_at = :until WHERE id = :id AND tenant_id = :tenant"""


def _that_fit(queue: str, task_type: str | None, batch: int) -> int:
    """How many of the next jobs may go out at once; one at least."""
    sizes = (NEXT_OF_TYPE if task_type else NEXT).replace("*", "octet_length(payload) AS size", 1)
    if (db.value(f"SELECT sum(size) FROM ({sizes})", queue=queue, task_type=task_type, batch=batch) or 0) <= BATCH:
        return batch
    total = fit = 0
    for size, in db.all(tuple, sizes, queue=queue, task_type=task_type, batch=batch):
        total += size
        fit += total <= BATCH
    return max(1, fit)


NEXT = """SELECT * FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'waiting'
             AND NOT EXISTS (SELECT 1 FROM queues WHERE tenant_id = :tenant AND name = :queue AND paused_at IS NOT NULL)
          ORDER BY priority, id LIMIT :batch"""
NEXT_OF_TYPE = NEXT.replace("ORDER BY", "AND task_type = :task_type ORDER BY")


@writes
def complete(id: int, token: str, result: Any = None, *, claim_next: bool = False, worker: str | None = None) -> tuple[Job, Job | None]:
    """Finish a job with its lease token; with `claim_next`, lease the next of the queue in the same step.

    Completing again with the same token changes nothing. NotFound, LeaseLost.
    """
    job = find(id)
    _finish([(job, token, result)])
    following = _claim(job.queue, worker or job.worker_id or "") if claim_next else []
    return job, following[0] if following else None


@writes
def complete_many(done: list[tuple[int, str, Any]]) -> list[Job | Problem]:
    """Finish several jobs, each (id, lease token, result) for itself, in one step; for each the job, or why it is not finished."""
    found = {job.id: job for job in db.all(Job, """
        SELECT * FROM jobs WHERE tenant_id = :tenant AND id IN (SELECT value FROM json_each(:ids))""", ids=jsoned([id for id, _, _ in done]))
        if _visible(job.queue)}
    held: list[tuple[Job, str, Any]] = []
    outcomes: list[Job | Problem] = []
    for id, token, result in done:
        job = found.get(id)
        if job is None:
            outcomes.append(_nowhere(id))
        elif not _may_finish(job, token):
            outcomes.append(_lost(job, token))
        else:
            outcomes.append(job)
            held.append((job, token, result))
    _finish(held)
    return outcomes


def _may_finish(job: Job, token: str) -> bool:
    return job.lease_token == token and job.state in ("active", "completed")


def _finish(done: list[tuple[Job, str, Any]]) -> None:
    """Make jobs completed whose lease tokens are right; of those that are, nothing changes. LeaseLost, ShareUsed: then of none."""
    rows: dict[int, dict[str, Any]] = {}  # not dict[int, …](): that takes a microsecond
    moment = now()
    for job, token, result in done:
        if not _may_finish(job, token):
            raise _lost(job, token)
        if job.state == "active":
            job.state, job.result, job.finished_at, job.lease_expires_at, job.error = "completed", result, moment, None, None
            rows[job.id] = {"id": job.id, "tenant": job.tenant_id, "now": moment, "result": None if result is None else jsoned_any(result)}
    told = [row for row in rows.values() if row["result"] is not None]
    bare = [row for row in rows.values() if row["result"] is None] if len(told) < len(rows) else []
    if told:
        shares.require(bytes=sum(len(row["result"]) for row in told))
        db.run_many(FINISH_WITH, told)
    if len(bare) > 16:  # one statement for all; for few, reading their list costs more than it saves
        db.run(FINISH_ALL, ids=jsoned([row["id"] for row in bare]), now=moment)
    elif bare:
        db.run_many(FINISH, bare)
    working.tell_of(*rows)
    for job, _, _ in done:
        if rows.pop(job.id, None):
            emit("job.completed", job)


FINISH = "UPDATE jobs SET state = 'completed', finished_at = :now, lease_expires_at = NULL, error = NULL WHERE tenant_id = :tenant AND id = :id"
FINISH_ALL = FINISH.replace("tenant_id = :tenant AND id = :id", "+tenant_id = :tenant AND id IN (SELECT value FROM json_each(:ids))")
FINISH_WITH = FINISH.replace("SET ", "SET result = :result, ")  # apart, for a result is weighed


@writes
def fail(id: int, token: str, error: str, *, retryable: bool = True, retry_in: float | None = None) -> Job:
    """Give a job back as failed: again later, or - not retryable, or attempts exhausted - never. NotFound, LeaseLost."""
    job = _held(id, token)
    return _failed(job, error, retryable, _backoff(job) if retry_in is None else retry_in)


def _failed(job: Job, error: str, retryable: bool, after: float) -> Job:
    if retryable and job.attempt < job.max_attempts:
        return _back(job, "job.retrying", error, after)
    job = db.one(Job, """
        UPDATE jobs SET state = :state, error = :error, finished_at = :now, lease_expires_at = NULL
         WHERE id = :id AND tenant_id = :tenant RETURNING *""",
        id=job.id, state="dead" if retryable else "failed", error=error[:8192], now=now())
    working.tell_of(job.id)
    emit("job.failed", job)
    return job


def _back(job: Job, event: str, error: str | None, after: float = 0.0, refund: int = 0, put_off: str | None = None) -> Job:
    """Put an active job back: waiting, or due after so many seconds; `put_off` since then, where that is why. A failed attempt ends it."""
    job = db.one(Job, """
        UPDATE jobs SET state = :state, run_at = :run_at, error = ifnull(:error, error), attempt = attempt - :refund,
               deferrals = :deferrals, deferred_since = :since, lease_expires_at = NULL, lease_token = NULL
         WHERE id = :id AND tenant_id = :tenant RETURNING *""",
        id=job.id, state="delayed" if after > 0 else "waiting", run_at=now(after) if after > 0 else None,
        error=error and error[:8192], refund=refund, deferrals=refund * (job.deferrals + (put_off is not None)),
        since=(put_off or job.deferred_since) if refund else None)
    _ready(job)
    working.tell_of(job.id)
    emit(event, job)
    return job


def _backoff(job: Job) -> float:
    """Seconds before the next attempt: fixed, or 2^(attempts made - 1) times the base; a day at most."""
    factor = 2 ** min(job.attempt - 1, 30) if job.backoff_kind == "exponential" else 1
    return min(job.backoff_ms * factor / 1000, 86400)


def jsoned_any(value: Any) -> str:
    """`value` as JSON text, also where it is a bare string or number."""
    return msgspec.json.encode(value).decode()


def find(id: int) -> Job:
    """One job of this tenant that whoever asks may see. NotFound."""
    job = db.one(Job, "SELECT * FROM jobs WHERE id = :id AND tenant_id = :tenant", id=id)
    if job is None or not _visible(job.queue):
        raise _nowhere(id)
    return job


def _nowhere(id: int) -> NotFound:
    return NotFound(f"There is no job job_{id}")


def _visible(queue: str) -> bool:
    me = current()
    return queue == f"agent:{me.name}" if me.kind == "agent" else queue not in OWNS or me.kind == "system"


def named(queue: str) -> str:
    """A queue that somebody named from outside. Invalid for the server's own; Denied where an agent names another than its own."""
    me = current()
    if queue in OWNS and me.kind != "system":
        raise wrong("queue_name", f"{queue!r} is the server's own; choose another")
    if not _visible(queue):
        raise Denied(f"The key of agent {me.name} works for queue agent:{me.name}, not {queue}")
    return queue


def _held(id: int, token: str) -> Job:
    job = find(id)
    if job.state != "active" or job.lease_token != token:
        raise _lost(job, token)
    return job


def _lost(job: Job, token: str) -> LeaseLost:
    if not leases.was_one(token, job.id):
        return LeaseLost(f"lease_token: That never was a lease of job_{job.id}; send the lease_token that its claim answered")
    return LeaseLost(f"That lease of job_{job.id} is no longer: the job is {job.state}; claim again")


_sooner = threading.Event()  # something may be due sooner than was thought


def id_of(text: str) -> int:
    """12 of "job_12". Invalid."""
    number = text.removeprefix("job_")
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise wrong("id", f"{text[:60]!r} is no job id; it looks like job_12")
    return int(number)


from . import leases, working  # noqa: E402, I001  # last: these use the verbs above
from .working import Signals as Signals, heartbeat as heartbeat, listen as listen, paused as paused, put_off as put_off, release as release  # noqa: E402
from . import waiting  # noqa: E402
from .waiting import wait_and_claim as wait_and_claim  # noqa: E402
from .deciding import cancel, hold, lose_of, pause, promote, release_active, release_of, remove  # noqa: E402, F401
from .deciding import bury, reprioritize, resume, retry, retry_dead, retry_some, unhold, withdraw  # noqa: E402, F401
from . import executor as executor  # noqa: E402
from .executor import before_due as before_due, later as later, on_clock as on_clock  # noqa: E402
from .seeing import QueueStats, explained, explains, names, of_ids, shut, shuts, stats, why, whys, whys_of  # noqa: E402, F401
