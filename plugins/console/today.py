"""Today: what the first page shows: the tasks by status, the agents, the last lines of the log.

Owns no table; it reads what the API reads, or joins. Surprise: a list here is short, and its number is the whole one.
"""
from orkosi import Page, Paging, Struct, db
from plugins import agents, logs, tasks
from plugins.agents.state import SeenAgent
from plugins.tasks import Task

SHOWN = 8  # of each
# What needs a person stands first, what is over last.
STATUSES = ("review", "blocked", "in_progress", "todo", "done")
RANK = {"working": 0, "active": 0, "error": 1, "offline": 1, "blocked": 1, "idle": 2, "paused": 3, "stopped": 4}


class Finished(Struct):
    """A task that is over."""
    id: int
    title: str
    assignee: str | None
    resolution: str | None
    finished_at: str


def open_tasks() -> dict[str, Page[Task]]:
    """The newest tasks of each status that is not over, each with why nobody works on it."""
    return {status: tasks.page(tasks.TaskQuery(status=[status], limit=SHOWN)) for status in STATUSES if status != "done"}  # type: ignore[list-item]


def finished() -> list[Finished]:
    """What was done last."""
    return db.all(Finished, """SELECT id, title, assignee, resolution, finished_at FROM tasks WHERE tenant_id = :tenant AND status = 'done'
                                 AND finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT :limit""", limit=SHOWN)


def count_done() -> int:
    """How many tasks are done, counted to 10,000."""
    return db.value("SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND status = 'done' LIMIT 10000) AS counted") or 0


def staff() -> list[SeenAgent]:
    """The agents, the busy first, then those in trouble."""
    return sorted(agents.state.page(Paging(limit=200), None).items, key=lambda agent: (RANK.get(agent.status, 2), agent.name))


def last_lines() -> list[logs.Line]:
    """The end of the log, oldest first."""
    return logs.page(logs.LogQuery(limit=20)).items[::-1]
