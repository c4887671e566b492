"""The wire of the task queue. (BullMQ's face is another file over the same verbs.)"""
from datetime import UTC
from typing import Annotated, Any

import msgspec

from orkosi import Actor, Meta, Page, Paging, Reply, Request, Struct, acting, may
from plugins import lists, queue, tenants
from plugins.fields import instant, wrong
from plugins.queue import BY_STATE, JOBS, Job, Name, QueueStats, Signals, State, Why, plugin, seeing

Short = Annotated[str, Meta(min_length=1, max_length=200)]
Token = Annotated[str, Meta(min_length=1, max_length=100)]
SAME = {"duplicate": True, "message": "A job of this queue has this idempotency_key already, and is answered instead; nothing was submitted"}
MAX_PROGRESS = 16 << 10

WORK = may("member", "queue:work")
SUBMIT = may("member", "queue:submit")
READ = may("viewer", "queue:work")


class NewJob(Struct, forbid_unknown_fields=True):
    task_type: Name
    payload: dict[str, Any] = {}
    queue_name: Name = "default"
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000, description="Lower runs first; 0 is the default")] = 0
    tenant_id: int | None = None
    max_attempts: Annotated[int, Meta(ge=1, le=25)] = 3
    timeout_seconds: Annotated[int, Meta(ge=1, le=86400, description="How long a lease lasts")] = 300
    idempotency_key: Short | None = None
    delay_seconds: Annotated[float, Meta(ge=0, le=31_536_000)] = 0


class Claim(Struct, forbid_unknown_fields=True):
    worker_id: Short
    queue_name: Name = "default"
    task_type: Name | None = None
    tenant_id: int | None = None
    batch_size: Annotated[int, Meta(ge=1, le=100)] | None = None
    wait_seconds: Annotated[float, Meta(ge=0, le=25)] = 0


class Claimed(Struct):
    """A job, leased: what a worker needs."""
    id: str
    task_type: str
    queue_name: str
    payload: Any
    priority: int
    attempt: int
    max_attempts: int
    lease_token: str
    lease_expires_at: str
    timeout_seconds: int


class Shown(Struct):
    """A job as operators see it."""
    id: str
    task_type: str
    queue_name: str
    status: State
    payload: Any
    priority: int
    attempt: int
    max_attempts: int
    timeout_seconds: int
    idempotency_key: str | None
    run_at: str | None
    lease_expires_at: str | None
    worker_id: str | None
    progress: Any
    result: Any
    error: str | None
    tokens_used: int
    deferrals: int
    created_at: str
    claimed_at: str | None
    finished_at: str | None
    why: list[Why] | None = None


class Completion(Struct, forbid_unknown_fields=True):
    lease_token: Token
    result: Any = None
    claim_next: bool = False
    worker_id: Short | None = None
    tenant_id: int | None = None


class Refusal(Struct):
    code: str
    message: str


class Completed(Struct):
    job: Shown
    next: Claimed | None


class DoneJob(Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=r"\A(job_)?[0-9]{1,18}\Z", description="looks like job_12")]
    lease_token: Token
    result: Any = None


class Completions(Struct, forbid_unknown_fields=True):
    jobs: Annotated[list[DoneJob], Meta(min_length=1, max_length=100)]
    tenant_id: int | None = None


class Outcome(Struct):
    """What became of one completion: `error` is null where the job is completed."""
    id: str
    completed: bool
    error: Refusal | None


class Failure(Struct, forbid_unknown_fields=True):
    lease_token: Token
    error: Annotated[str, Meta(max_length=65536)]
    retryable: bool = True
    retry_in_seconds: Annotated[float, Meta(ge=0, le=86400)] | None = None
    tenant_id: int | None = None


class Heartbeat(Struct, forbid_unknown_fields=True):
    lease_token: Token
    extend_seconds: Annotated[float, Meta(ge=1, le=86400)] | None = None
    progress: Any = None
    tokens_used: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    wait_seconds: Annotated[float, Meta(ge=0, le=25, description="How long the answer may wait for a `cancel` or a `pause`")] = 0
    tenant_id: int | None = None


class Release(Struct, forbid_unknown_fields=True):
    lease_token: Token
    reason: Annotated[str, Meta(min_length=1, max_length=8192, description="Why it cannot be done now: the job is put off")] | None = None
    retry_in_seconds: Annotated[float, Meta(ge=0, le=86400)] | None = None
    give_up_at: Annotated[str, Meta(max_length=40, description="When waiting is over: the end of a day in UTC, or a time")] | None = None
    tenant_id: int | None = None


class Query(Paging):
    queue_name: Name | None = None
    status: State | None = None
    task_type: Name | None = None


class StatsQuery(Struct, forbid_unknown_fields=True):
    queue_name: Name | None = None


Ids = Annotated[list[str], Meta(min_length=1, max_length=1000, description="Numbers of jobs, as job_12")]


class RetryOrder(Struct, forbid_unknown_fields=True):
    """A queue, for all of its dead jobs, or jobs by their numbers."""
    queue_name: Name | None = None
    ids: Ids | None = None


class Retried(Struct):
    retried: int


class BuryOrder(Struct, forbid_unknown_fields=True):
    ids: Ids


class Buried(Struct):
    buried: int


def claimed(job: Job) -> Claimed:
    return Claimed(f"job_{job.id}", job.task_type, job.queue, job.payload, job.priority, job.attempt, job.max_attempts,
                   job.lease_token or "", job.lease_expires_at or "", job.timeout_seconds)


def shown(job: Job, why: list[Why] | None = None) -> Shown:
    return Shown(f"job_{job.id}", job.task_type, job.queue, job.state, job.payload, job.priority, job.attempt, job.max_attempts,
                 job.timeout_seconds, job.idempotency_key, job.run_at, job.lease_expires_at, job.worker_id, job.progress,
                 job.result, job.error, job.tokens_used, job.deferrals, job.created_at, job.claimed_at, job.finished_at, why)


@plugin.post("/api/task-queue/submit", quick=True, auth=SUBMIT, status=201, statuses=(200,), raises=(400, 404, 503), tool="job_submit")
def submit(body: NewJob, me: Actor) -> Reply[Shown]:
    """Submit a job

    With an `idempotency_key` a repeat answers 200 with the first job and `meta.duplicate`. Acknowledged when it is on the disk."""
    queue.require_small(body.payload, "payload")
    with acting(tenants.asked_for(body.tenant_id)):
        job, duplicate = queue.submit(
            queue.named(body.queue_name), body.task_type, body.payload, priority=body.priority, max_attempts=body.max_attempts,
            timeout=body.timeout_seconds, key=body.idempotency_key,
            run_at=queue.now(body.delay_seconds) if body.delay_seconds else None)
    return Reply(shown(job), 200, SAME) if duplicate else Reply(shown(job))


@plugin.post("/api/task-queue/claim", quick=True, durable=False, auth=WORK, raises=(400, 404), tool="job_claim")
def claim(body: Claim, me: Actor, request: Request) -> Claimed | list[Claimed] | None:
    """Claim the next job, or with `batch_size` the next jobs

    `data` is null where there is nothing; `wait_seconds` waits for something to come. A batch ends early at 4 MB of payloads.
    What is claimed is leased until `lease_expires_at`: complete, fail, release or extend it with its `lease_token` before then."""
    with acting(tenants.asked_for(body.tenant_id)):
        jobs = queue.waiting.claim_or_wait(queue.named(body.queue_name), body.worker_id, wait=body.wait_seconds, ring=request.again,
                                           task_type=body.task_type, batch=body.batch_size or 1, before=request.waits)
    request.if_lost = (lambda: queue.waiting.give_back(jobs)) if jobs else None
    if body.batch_size is None:
        return claimed(jobs[0]) if jobs else None
    return [claimed(job) for job in jobs] or None


@plugin.get("/api/task-queue", auth=READ)
def index(query: Query, me: Actor) -> Page[Shown]:
    """List jobs, newest first

    With a `status`: waiting and delayed ones as they will run, active ones by the end of their lease."""
    own = f"agent:{me.name}" if me.kind == "agent" else None
    name = queue.named(query.queue_name) if query.queue_name else own
    listing = BY_STATE[query.status] if query.status else seeing.OF_QUEUE if name else JOBS
    found = lists.page(listing, query, **({"queue_name": name} if name else {}))
    reasons = iter(queue.whys(found.items))
    return found.map(lambda job: shown(job, next(reasons)))


@plugin.get("/api/task-queue/stats", auth=READ)
def stats(query: StatsQuery) -> list[QueueStats]:
    """Count the jobs of each queue by state; queues by name"""
    return [queue.stats(name) for name in ([queue.named(query.queue_name)] if query.queue_name else queue.names())]


@plugin.post("/api/task-queue/retry", auth=may("editor", "queue:submit"))
def retry_dead(body: RetryOrder) -> Retried:
    """Run every dead job of a queue again, with all its attempts

    Or, with `ids`, those that are dead, failed or cancelled; the others stay as they are."""
    if (body.ids is None) == (body.queue_name is None):
        raise wrong("ids", "Send either a queue_name or ids")
    if body.ids is not None:
        return Retried(queue.retry_some([queue.id_of(id) for id in body.ids]))
    return Retried(queue.retry_dead(queue.named(body.queue_name or "")))


@plugin.post("/api/task-queue/bury", auth=may("editor", "queue:submit"))
def bury(body: BuryOrder) -> Buried:
    """Take a retry back

    Those of the jobs that wait, and were not tried since, are dead, failed or cancelled again; the others stay as they are."""
    return Buried(queue.bury([queue.id_of(id) for id in body.ids]))


@plugin.get("/api/task-queue/{id}", auth=READ, raises=(404,), tool="job_show")
def show(id: str) -> Shown:
    """Show a job, and why it is not running"""
    job = queue.find(queue.id_of(id))
    return shown(job, queue.why(job))


@plugin.post("/api/task-queue/{id}/complete", quick=True, auth=WORK, raises=(404, 409), tool="job_complete")
def complete(id: str, body: Completion, request: Request) -> Completed:
    """Complete a job with its lease token; with `claim_next`, get the queue's next job in the same answer

    Completing again with the same token changes nothing. A token that does not match is 409 `lease_lost`."""
    with acting(tenants.asked_for(body.tenant_id)):
        job, following = queue.complete(queue.id_of(id), body.lease_token, body.result, claim_next=body.claim_next, worker=body.worker_id)
    if following:
        request.if_lost = lambda: queue.waiting.give_back([following])
    return Completed(shown(job), claimed(following) if following else None)


@plugin.post("/api/task-queue/complete", quick=True, auth=WORK, raises=(400, 404, 507), max_body=4 << 20)
def complete_many(body: Completions) -> list[Outcome]:
    """Complete up to a hundred jobs, each with its lease token

    Each has an outcome of its own, in the order they were sent: one that is not ours any more keeps none of the others back."""
    with acting(tenants.asked_for(body.tenant_id)):
        outcomes = queue.complete_many([(queue.id_of(one.id), one.lease_token, one.result) for one in body.jobs])
    return [Outcome(f"job_{queue.id_of(one.id)}", isinstance(made, Job), None if isinstance(made, Job) else Refusal(made.code, made.message))
            for one, made in zip(body.jobs, outcomes, strict=True)]


@plugin.post("/api/task-queue/{id}/fail", quick=True, auth=WORK, raises=(404, 409), tool="job_fail")
def fail(id: str, body: Failure) -> Shown:
    """Report a failed attempt

    It is tried again after a back-off, or `retry_in_seconds`; with `retryable` false, or all attempts used, never."""
    with acting(tenants.asked_for(body.tenant_id)):
        return shown(queue.fail(queue.id_of(id), body.lease_token, body.error, retryable=body.retryable, retry_in=body.retry_in_seconds))


@plugin.post("/api/task-queue/{id}/heartbeat", auth=WORK, raises=(404, 409), tool="job_heartbeat")
def heartbeat(id: str, body: Heartbeat, request: Request) -> Signals:
    """Extend a lease, and hear whether to stop

    `cancel`: the job was cancelled, stop working on it. `pause`: finish it and claim no more. With `wait_seconds` the lease is
    extended at once, and the answer comes when there is one of these to hear, or when that time is over."""
    if len(msgspec.json.encode(body.progress)) > MAX_PROGRESS:
        raise wrong("progress", f"At most {MAX_PROGRESS >> 10} KiB")
    number, heard = queue.id_of(id), None
    with acting(tenants.asked_for(body.tenant_id)):
        if request.waits is None:  # asked again, it has been extended
            heard = queue.heartbeat(number, body.lease_token, extend=body.extend_seconds, progress=body.progress, tokens=body.tokens_used)
        if heard is None or body.wait_seconds:
            return queue.listen(number, body.lease_token, wait=body.wait_seconds, ring=request.again, before=request.waits)
    return heard


@plugin.post("/api/task-queue/{id}/release", auth=WORK, raises=(400, 404, 409), tool="job_release")
def release(id: str, body: Release) -> Shown:
    """Give a job back; it costs no attempt

    Without a `reason` anybody may take it again at once. With one it is put off: by `retry_in_seconds`, or 30 s and twice as long
    each time up to 30 min. Where it would be due only past `give_up_at`, or a day after it was first put off, it has failed instead."""
    if body.reason is None and (body.retry_in_seconds is not None or body.give_up_at is not None):
        raise wrong("reason", "Say why the job is put off, or give it back without `retry_in_seconds` and `give_up_at`")
    until = None if body.give_up_at is None else ending(body.give_up_at)
    with acting(tenants.asked_for(body.tenant_id)):
        if body.reason is None:
            return shown(queue.release(queue.id_of(id), body.lease_token))
        return shown(queue.put_off(queue.id_of(id), body.lease_token, body.reason, after=body.retry_in_seconds, until=until))


def ending(text: str) -> float:
    """The last moment, in seconds since the epoch, that a day or a time means."""
    moment = instant(text, "give_up_at")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.timestamp() + (86400 if len(text) == 10 else 0)


@plugin.post("/api/task-queue/{id}/retry", quick=True, auth=may("member", "queue:submit"), raises=(404, 409))
def retry(id: str) -> Shown:
    """Run a dead, failed or cancelled job again, with all its attempts"""
    return shown(queue.retry(queue.id_of(id)))


@plugin.post("/api/task-queue/{id}/cancel", quick=True, auth=may("member", "queue:submit"), raises=(404, 409))
def cancel(id: str) -> Shown:
    """Cancel an unfinished job; its worker hears it at the next heartbeat"""
    return shown(queue.cancel(queue.id_of(id)))
