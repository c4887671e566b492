"""Runs: the record of every time an agent worked, what came of it, and what it cost."""
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from orkosi import (
    UNSET,
    Conflict,
    Meta,
    NotFound,
    Page,
    Paging,
    Struct,
    UnsetType,
    across_tenants,
    current,
    db,
    emit,
    now,
    seconds,
    writes,
)
from plugins import lists, queue
from plugins.lists import Listing

from .rows import beat, plugin

RunStatus = Literal["running", "done", "failed", "retry", "stopped", "lost", "timeout"]


Count = Annotated[int, Meta(ge=0, le=2**53)]
Note = Annotated[str, Meta(max_length=4000)]


class RunPatch(Struct, forbid_unknown_fields=True):
    """What is reported of a run: what is set, is changed."""
    status: RunStatus | UnsetType = UNSET
    exit_code: int | None | UnsetType = UNSET
    tokens_in: Count | UnsetType = UNSET
    tokens_out: Count | UnsetType = UNSET
    cost_micros: Count | UnsetType = UNSET
    duration_ms: Count | UnsetType = UNSET
    note: Note | None | UnsetType = UNSET
    error: Annotated[str, Meta(max_length=65536)] | None | UnsetType = UNSET
    stdout_bytes: Count | UnsetType = UNSET
    stderr_bytes: Count | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET


class Run(Struct):
    """One time an agent worked. `cost_micros` are millionths of a dollar; `truncated`: the resolution is but the beginning of its output."""
    id: int
    agent: str
    task_id: int | None
    job_id: str | None
    mode: str
    status: RunStatus
    exit_code: int | None
    tokens_in: int
    tokens_out: int
    cost_micros: int
    duration_ms: int | None
    note: str | None
    error: str | None
    unpaid_tokens: int
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool
    replay_of: int | None
    started_at: str
    finished_at: str | None


COLUMNS = """id, agent, task_id, 'job_' || job_id AS job_id, mode, status, exit_code, tokens_in, tokens_out, cost_micros,
             duration_ms, note, error, unpaid_tokens, stdout_bytes, stderr_bytes, truncated, replay_of, started_at, finished_at"""
LIST = Listing(of=Run, source="agent_runs", columns=COLUMNS, heavy="ifnull(octet_length(error), 0) + ifnull(octet_length(note), 0)", light=2,
               filters={"agent": "agent = :agent", "status": "status = :status", "task_id": "task_id = :task_id"})


def page(query: Paging, **given: Any) -> Page[Run]:
    """Runs, newest first."""
    return lists.page(LIST, query, **given)


def find(id: int, agent: str | None = None) -> Run:
    """One run, of `agent` where that is given. NotFound."""
    run = db.one(Run, f"SELECT {COLUMNS} FROM agent_runs WHERE id = :id AND tenant_id = :tenant AND (agent = :agent OR :agent IS NULL)",
                 id=id, agent=agent)
    if run is None:
        raise NotFound(f"There is no run {id}")
    return run


_starts: list[Callable[[str], None]] = []


def before_start(ask: Callable[[str], None]) -> Callable[[str], None]:
    """Register who may refuse a run that an agent begins by itself, without a job, by raising a Problem."""
    _starts.append(ask)
    return ask


@writes
def start(agent: str, *, task_id: int | None, job_id: int | None, mode: str, replay_of: int | None = None) -> Run:
    """Begin a run; a sign of life of its agent. NotFound where its job, its task or the run it repeats is not one the caller may see."""
    for ask in _starts if job_id is None else ():
        ask(agent)
    if replay_of is not None:
        find(replay_of, agent)
    if job_id is not None:
        queue.find(job_id)
    if task_id is not None and not db.value("""SELECT 1 FROM tasks WHERE id = :task AND tenant_id = :tenant
                                                  AND (assignee = :agent OR :agent IS NULL)""",
                                            task=task_id, agent=current().name if current().kind == "agent" else None):
        raise NotFound(f"There is no task {task_id}")
    row = db.insert(dict, "agent_runs", agent=agent, task_id=task_id, job_id=job_id, mode=mode, replay_of=replay_of, started_at=now())
    beat(agent)
    run = find(row["id"])
    emit("run.started", run)
    return run


@writes
def change(id: int, patch: RunPatch, agent: str | None = None) -> Run:
    """Report on a run; a status other than running ends it, and then its duration is known. NotFound."""
    before = find(id, agent)
    if before.finished_at and getattr(patch, "status", UNSET) == "running":
        raise Conflict(f"Run {id} is over; begin another")
    ends = getattr(patch, "status", UNSET) not in (UNSET, "running") and (before.finished_at is None or before.status == "lost")
    finish: dict[str, Any] = {"error": getattr(patch, "error", None)} if before.status == "lost" else {}
    if ends:
        finish["finished_at"] = now()
        if getattr(patch, "duration_ms", UNSET) is UNSET:
            finish["duration_ms"] = max(0, round(1000 * (seconds(finish["finished_at"]) - seconds(before.started_at))))
    db.patch(dict, "agent_runs", id, patch, **finish)
    beat(before.agent)
    run = find(id)
    if before.finished_at and counted(id) and _told(run) != _told(before):
        emit("run.corrected", run, before=before)
        run = find(id)  # whoever heard it may have priced it
    if ends:
        emit("run.finished", run)
        run = find(id)  # whoever heard it may have written what was left unpaid
    elif run.status == "running" and (run.tokens_in, run.tokens_out, run.cost_micros) != (before.tokens_in, before.tokens_out, before.cost_micros):
        emit("run.progress", run)
    return run


@writes
def count_once(id: int, product: str, model: str) -> bool:
    """Whether a run that is over is counted now for the first time, under these; inside a write."""
    return bool(db.run("""UPDATE agent_runs SET counted = 1, counted_product = :product, counted_model = :model
                           WHERE id = :id AND tenant_id = :tenant AND counted = 0""", id=id, product=product, model=model))


def counted_as(id: int) -> tuple[str, str] | None:
    """The product and the model that a run was counted under, whatever its task and its agent are by now; None where nobody kept them."""
    found = db.all(tuple, "SELECT counted_product, counted_model FROM agent_runs WHERE id = :id AND tenant_id = :tenant", id=id)
    return found[0] if found and found[0][0] is not None else None


def _told(run: Run) -> tuple[Any, ...]:
    """What sums are made of."""
    return run.status, run.tokens_in, run.tokens_out, run.cost_micros, run.duration_ms, run.finished_at


def counted(id: int) -> bool:
    """Whether a run is in the sums of costs already."""
    return bool(db.value("SELECT counted FROM agent_runs WHERE id = :id AND tenant_id = :tenant", id=id))


@writes
def set_cost(id: int, micros: int) -> None:
    """What a run cost by the price of its agent, where its tool told none."""
    db.run("UPDATE agent_runs SET cost_micros = :micros WHERE id = :id AND tenant_id = :tenant", micros=micros, id=id)


@writes
def leave_unpaid(id: int, tokens: int) -> None:
    """Note what the balance of its tenant did not cover of a run."""
    db.run("UPDATE agent_runs SET unpaid_tokens = :tokens WHERE id = :id AND tenant_id = :tenant", id=id, tokens=tokens)


@plugin.every("15s")
def close_lost() -> None:
    """End the record of runs whose job is no longer theirs: the process died, and the lease gave the job back.

    So of those without a job that were under way for a week, or whose agent gave no sign of life for a day.
    """
    if lost := _lost():
        _close(lost, "The process ended without a word; the job runs again")
    if silent := _silent():
        _close(silent, "It was begun without a job, and nobody said how it ended")


@across_tenants
def _lost() -> list[tuple[int, str]]:
    # A run's record follows its claim, and its end follows the job's, by less than a minute.
    return [(id, now()) for id, in db.all(tuple, """
        SELECT id FROM agent_runs WHERE status = 'running' AND job_id IS NOT NULL AND started_at < :then
           AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = agent_runs.job_id AND jobs.state = 'active'
                              AND jobs.claimed_at <= agent_runs.started_at)""", then=now(-60))]


AT_MOST, SILENCE = 7 * 86400.0, 86400.0  # seconds


@across_tenants
def _silent() -> list[tuple[int, str]]:
    """Runs without a job that nobody ends, and until when they may have been under way: what they cost is of that day, and not of each since."""
    found = db.all(tuple, """
        SELECT agent_runs.id, started_at, ifnull(last_heartbeat, '') FROM agent_runs
               LEFT JOIN agents ON agents.tenant_id = agent_runs.tenant_id AND agents.name = agent_runs.agent
         WHERE agent_runs.status = 'running' AND job_id IS NULL AND started_at < :day
           AND (started_at < :week OR ifnull(last_heartbeat, '') < :day)""",
        day=now(-SILENCE), week=now(-AT_MOST))
    return [(id, max(began, min(heard, now(seconds(began) + AT_MOST - time.time())))) for id, began, heard in found]


@writes(durable=False)
@across_tenants
def _close(lost: list[tuple[int, str]], error: str) -> None:
    for id, ended in lost:
        db.run("UPDATE agent_runs SET status = 'lost', finished_at = :ended, error = :error WHERE id = :id AND status = 'running'",
               id=id, ended=ended, error=error)
