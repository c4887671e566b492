"""Work: runs with what they wrote, and queues with why their jobs failed.

Owns no table. Surprise: failures are grouped by their last line without its numbers, of the newest thousand: what failed together is
retried together.
"""
from typing import Any

from orkosi import Request, Struct, db, seconds
from plugins import queue
from plugins.agents import kept
from plugins.agents.runs import Run
from plugins.dashboard import needs
from plugins.queue.seeing import QueueStats

from .asking import can, seek

WINDOW = 1000
LINES = 500
AFTER = 2.0  # seconds after its end in which the last lines of a run come in
STATES = ("active", "waiting", "delayed", "dead", "failed", "cancelled", "completed")


class Cause(Struct):
    """Failures of one cause."""
    line: str
    ids: list[str]
    last: str


class Written(Struct):
    """A line that was written while a run went on."""
    id: int
    level: str
    message: str
    created_at: str


def causes(name: str, state: str) -> list[Cause]:
    """The newest failures of a queue by their cause, the commonest first."""
    found: dict[str, Cause] = {}
    for id, error, at in db.all(tuple, f"""
            SELECT id, error,
                finished_at FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = '{"dead" if state == "dead" else "failed"}'
               AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT :most""", queue=name, most=WINDOW):
        found.setdefault(needs.cause(error), Cause(needs.last_line(error), [], at)).ids.append(f"job_{id}")
    return sorted(found.values(), key=lambda one: -len(one.ids))


def queues() -> list[QueueStats]:
    """The queues, those with dead jobs first, then those at work, then those that wait."""
    found = [queue.stats(name) for name in queue.names()]
    return sorted(found, key=lambda one: (not one.counts["dead"], not one.counts["active"], not one.counts["waiting"], one.queue_name))


def lines_of(run: Run) -> list[Written]:
    """The last lines that were written for a run's task while it went on, oldest first."""
    if run.task_id is None:
        return []
    later = db.value("""SELECT min(started_at) FROM agent_runs WHERE tenant_id = :tenant AND task_id = :task AND id > :id""",
                     task=run.task_id, id=run.id)
    ended = min(queue.iso(seconds(run.finished_at) + AFTER), later or "9") if run.finished_at else "9"
    return db.all(Written, """
        SELECT id, level, message, created_at FROM log_lines WHERE task_id = :task AND agent = :agent AND created_at >= :began
           AND created_at < :ended ORDER BY id DESC LIMIT :most""", task=run.task_id, agent=run.agent, began=run.started_at,
        ended=ended, most=LINES)[::-1]


def output_of(request: Request, id: int) -> dict[str, Any]:
    """What a run's brain said on both of its outputs, as far as that is kept and may be seen."""
    found = {stream: seek("GET /api/agent-runs/{id}/output", request, {"id": str(id)}, stream=stream, limit=65536) for stream in ("stdout", "stderr")}
    return {stream: one for stream, one in found.items() if one is not None and one.text}


def told(run: Run) -> dict[str, Any] | None:
    """What a run's brain was told, as far as that is kept and may be seen; without the environment."""
    if not can("GET /api/agent-runs/{id}/output") or not kept.is_here(run.agent):
        return None
    try:
        found: dict[str, Any] = kept.input_of(run.agent, run.id)["told"]
        return found
    except (OSError, ValueError, KeyError):
        return None
