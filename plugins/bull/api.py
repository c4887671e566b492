"""The wire of BullMQ's face."""
from typing import Annotated, Any, Literal

import msgspec

from orkosi import UNSET, Deleted, Meta, Page, Paging, Reply, Struct, UnsetType, may
from plugins import lists, schedules
from plugins import queue as jobs
from plugins.bull import (
    Backoff,
    BullJob,
    BullStats,
    Opts,
    Seen,
    clean,
    find,
    in_path,
    is_id,
    name_of,
    named,
    names,
    plugin,
    range_of,
    require_no_agent,
    retry_all,
    schedule_of,
    seen,
    stats,
)
from plugins.fields import line, wrong
from plugins.queue import Job

READ, SUBMIT = may("viewer", "queue:work"), may("member", "queue:submit")
DECIDE = may("editor", "queue:submit")
SAME = {"duplicate": True, "message": "The queue has a job of this job_id already, and it is answered instead; nothing was submitted"}
MAX_DELAY = 31_536_000_000  # ms: a year

Queue = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", description="Letters, digits and . _ -")]
Text = Annotated[str, Meta(min_length=1, max_length=200)]
Delay = Annotated[int, Meta(ge=0, le=MAX_DELAY, description="Milliseconds")]
Priority = Annotated[int, Meta(ge=0, le=2_097_151, description="Lower runs first; 0, the default, before all")]
Attempts = Annotated[int, Meta(ge=1, le=1000)]


class BullSubmit(Struct, forbid_unknown_fields=True):
    queue: Queue
    name: Text
    data: dict[str, Any]
    priority: Priority = 0
    attempts: Attempts = 1
    backoff: Annotated[int, Meta(ge=0, le=MAX_DELAY)] | Backoff | None = None
    delay: Delay = 0
    job_id: Annotated[str, Meta(max_length=200, description="Neither digits alone, nor with a colon")] | None = None


class Cleaning(Struct, forbid_unknown_fields=True):
    status: Literal["completed", "failed", "delayed", "waiting", "paused", "prioritized"] = "completed"
    grace: Annotated[int, Meta(ge=0, le=MAX_DELAY, description="Milliseconds")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class Cleaned(Struct):
    """The ids of the jobs that are gone."""
    removed: list[str]


class RetryAll(Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=1000)] = 1000
    timestamp: Annotated[int, Meta(ge=0, le=253_402_300_799_000, description="ms since 1970")] | None = None


class RetriedAll(Struct):
    retried: int


class BullScheduled(Struct, forbid_unknown_fields=True):
    queue: Queue
    name: Text
    data: dict[str, Any]
    delay: Delay | None = None
    repeat: Annotated[str, Meta(max_length=200, description="A cron line of 5 or 6 fields")] | None = None
    every: Annotated[int, Meta(ge=1, le=MAX_DELAY, description="Milliseconds, 1,000 at least")] | None = None
    tz: Annotated[str, Meta(max_length=60, description="Of `repeat`; default: this machine's")] | None = None
    priority: Priority = 0
    attempts: Attempts = 1
    backoff: Annotated[int, Meta(ge=0, le=MAX_DELAY)] | Backoff | None = None


class BullSubmitted(Struct):
    """A job, as it was taken."""
    id: str
    name: str
    queue: str
    state: Seen
    data: Any
    opts: Opts
    timestamp: int


class Planned(Struct):
    """A schedule, as it is planned."""
    name: str
    repeat: str | None
    every: int | None
    tz: str
    next_run_at: str | None


class BullSubmittedScheduled(BullSubmitted):
    """The next job, and what it comes from; `schedule` is null where it runs once."""
    schedule: Planned | None


class BullSchedule(Struct):
    """A schedule. `missed` counts slots that passed without a job."""
    name: str
    queue: str
    repeat: str | None
    every: int | None
    tz: str
    data: Any
    next_run_at: str | None
    last_run_at: str | None
    runs: int
    missed: int


class StatsOf(Struct, forbid_unknown_fields=True):
    queue: Queue | None = None


class Range(Struct, forbid_unknown_fields=True):
    status: Seen | None = None
    start: Annotated[int, Meta(ge=-10**9, le=10**9)] = 0
    end: Annotated[int, Meta(ge=-10**9, le=10**9)] = -1


class OfQueue(Paging):
    queue: Queue | UnsetType = UNSET


class Which(Struct, forbid_unknown_fields=True):
    queue: Queue | None = None


class BullPaused(Struct):
    queue: str
    is_paused: bool


def taken(job: Job) -> BullSubmitted:
    one = seen(job, jobs.paused(job.queue))
    return BullSubmitted(one.id, one.name, job.queue, one.state, one.data, one.opts, one.timestamp)


def taken_of(job: Job, one: schedules.Schedule | None) -> BullSubmittedScheduled:
    plan = None if one is None else Planned(one.name, one.cron, one.every_ms, one.tz, one.slot)
    return BullSubmittedScheduled(**msgspec.structs.asdict(taken(job)), schedule=plan)


def kind_of(backoff: int | Backoff | None) -> tuple[str, int]:
    if isinstance(backoff, Backoff):
        if not 0 <= backoff.delay <= MAX_DELAY:
            raise wrong("backoff", f"`delay` is 0 to {MAX_DELAY} ms")
        return backoff.type, backoff.delay
    return "fixed", backoff or 0


@plugin.post("/api/bull-queue/submit", quick=True, auth=SUBMIT, status=201, statuses=(200,), raises=(400, 503))
def submit(body: BullSubmit) -> Reply[BullSubmitted]:
    """Submit a job, as to BullMQ

    With a `job_id` that the queue has already, it answers 200 with that job and `meta.duplicate`."""
    if body.job_id is not None and not is_id(body.job_id):
        raise wrong("job_id", "Not empty, not digits alone, without colon, slash or what is not printed; leave it out to be given a number")
    jobs.require_small(body.data, "data")
    job, duplicate = jobs.submit(named(body.queue), line(body.name, "name", 200), body.data, priority=body.priority, max_attempts=body.attempts,
                                 backoff=kind_of(body.backoff), key=body.job_id, delay=body.delay / 1000)
    return Reply(taken(job), 200, SAME) if duplicate else Reply(taken(job))


@plugin.post("/api/bull-queue/submit-scheduled", auth=SUBMIT, status=201, raises=(400, 409, 503))
def submit_scheduled(body: BullScheduled) -> BullSubmittedScheduled:
    """Submit a job that runs later, or again and again

    `repeat`, a cron line, or `every`, in ms, make a schedule of this name, or change the one there is; `delay` alone runs it once."""
    jobs.require_small(body.data, "data")
    place, name, backoff = named(body.queue), line(body.name, "name", 200), kind_of(body.backoff)
    if body.repeat is None and body.every is None:
        if body.delay is None:
            raise wrong("repeat", "Give `repeat`, a cron line, or `every`, in milliseconds; or `delay` alone, to run it once")
        job, _ = jobs.submit(place, name, body.data, priority=body.priority, max_attempts=body.attempts, backoff=backoff,
                             delay=body.delay / 1000)
        return taken_of(job, None)
    if body.repeat is not None and body.every is not None:
        raise wrong("every", "Give `repeat` or `every`, not both")
    if body.every is not None and body.every < 1000:
        raise wrong("every", "At least 1000 ms")
    if body.tz is not None and body.repeat is None:
        raise wrong("tz", "A time zone belongs to `repeat`; `every` knows none")
    if not in_path(name):
        raise wrong("name", "A schedule's name is part of its address: no slash in it, and neither . nor ..")
    one = schedules.keep(place, name, body.data, cron=body.repeat, every=body.every, tz=body.tz, delay=(body.delay or 0) / 1000,
                         priority=body.priority, max_attempts=body.attempts, backoff=backoff)
    return taken_of(jobs.find(one.job_id or 0), one)


@plugin.get("/api/bull-queue/stats", auth=READ, raises=(400,))
def of_all(query: StatsOf) -> list[BullStats]:
    """Count the jobs of each queue, as BullMQ counts them; or of one queue"""
    return [stats(name) for name in ([named(query.queue)] if query.queue else names())]


@plugin.get("/api/bull-queue/{queue}/jobs", auth=READ, raises=(400,))
def index(queue: str, query: Range) -> Reply[list[BullJob]]:
    """List jobs of a queue from `start` to `end`, both with them; negative ones count from the last

    Without a `status`, all of them, newest first; completed and failed ones newest first; others in the order in which they come."""
    name = named(queue)
    found, stopped, start, end, cut = range_of(name, query.status, query.start, query.end)
    return Reply([seen(job, stopped) for job in found], 0, {"start": start, "end": end, "cut": cut})


@plugin.post("/api/bull-queue/{queue}/pause", auth=DECIDE, raises=(400,))
def pause(queue: str) -> BullPaused:
    """Let nobody begin a job of a queue; what is active goes on"""
    jobs.pause(named(queue))
    return BullPaused(queue, True)


@plugin.post("/api/bull-queue/{queue}/resume", auth=DECIDE, raises=(400,))
def resume(queue: str) -> BullPaused:
    """Let jobs of a queue begin again"""
    jobs.resume(named(queue))
    return BullPaused(queue, False)


@plugin.post("/api/bull-queue/{queue}/clean", auth=DECIDE, raises=(400,))
def clean_jobs(queue: str, body: Cleaning) -> Cleaned:
    """Take away jobs of one status that are older than `grace` ms, the oldest first

    Of those that are over, it counts from their end, of others from when they came. Active ones stay, and those that a schedule has pending."""
    return Cleaned(clean(named(queue), body.status, body.grace, body.limit))


@plugin.post("/api/bull-queue/{queue}/retry", auth=DECIDE, raises=(400,))
def retry_failed(queue: str, body: RetryAll) -> RetriedAll:
    """Run all failed jobs of a queue again, the oldest first, with all their attempts; `count` of them at most, that failed up to `timestamp`"""
    before = jobs.now() if body.timestamp is None else jobs.iso(body.timestamp / 1000)
    return RetriedAll(retry_all(named(queue), body.count, before))


@plugin.post("/api/bull-queue/{queue}/jobs/{id}/retry", auth=SUBMIT, raises=(400, 404, 409))
def retry(queue: str, id: str) -> BullJob:
    """Run a failed job again, with all its attempts"""
    return seen(jobs.retry(find(queue, id).id), jobs.paused(queue))


@plugin.post("/api/bull-queue/{queue}/jobs/{id}/promote", auth=SUBMIT, raises=(400, 404, 409))
def promote(queue: str, id: str) -> BullJob:
    """Let a delayed job run now"""
    return seen(jobs.promote(find(queue, id).id), jobs.paused(queue))


@plugin.delete("/api/bull-queue/{queue}/jobs/{id}", auth=DECIDE, raises=(400, 404, 409))
def remove(queue: str, id: str) -> Deleted:
    """Take a job away that is not active; its `job_id` may be given again"""
    return Deleted(name_of(jobs.remove(find(queue, id).id)))


@plugin.get("/api/bull-queue/schedules", auth=READ)
def planned(query: OfQueue) -> Page[BullSchedule]:
    """List schedules, by queue and name"""
    require_no_agent()
    given = {} if query.queue is UNSET else {"queue_name": named(str(query.queue))}
    return lists.page(schedules.SCHEDULES, query, **given).map(
        lambda one: BullSchedule(one.name, one.queue, one.cron, one.every_ms, one.tz, one.payload, one.next_run_at, one.last_run_at,
                                 one.runs, one.missed))


@plugin.delete("/api/bull-queue/schedules/{name}", auth=DECIDE, raises=(400, 404, 409))
def unplan(name: str, query: Which) -> Deleted:
    """End a schedule; its pending job goes along. Where several queues have one of this name, `queue` says which"""
    require_no_agent()
    one = schedules.find(named(query.queue), name) if query.queue else schedule_of(name)
    schedules.remove(one.queue, one.name)
    return Deleted(one.name)
