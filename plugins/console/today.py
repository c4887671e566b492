"""Today: what the first page shows beside what needs a person: who works, what waits, what it cost.

Owns no table; it reads what the API reads, or joins. Surprise: a list here is short, and its number is the whole one.
"""
import time

from orkosi import Struct, current, db, now
from plugins import agents, costs
from plugins.agents.rows import everyone
from plugins.agents.state import Glance

SHOWN = 8  # of each
RANK = {"working": 0, "active": 0, "error": 1, "offline": 1, "blocked": 1, "idle": 2, "paused": 3, "stopped": 4}
MINUTES = 60
FRESH = 1.0  # seconds
LIMIT = 10_000


class Working(Struct):
    """A run that is going on."""
    id: int
    agent: str
    task_id: int | None
    title: str | None
    started_at: str


class Finished(Struct):
    """A task that is over."""
    id: int
    title: str
    assignee: str | None
    resolution: str | None
    finished_at: str


class Spent(Struct):
    """What this local day cost so far, and who most of it was."""
    cost_micros: int
    runs: int
    by: list[tuple[str, int]]


class Day(Struct):
    """What a local day cost."""
    key: str
    runs: int
    cost_micros: int


def staff() -> list[Glance]:
    """The agents, the busy first, then those in trouble."""
    return sorted(agents.state.glance(everyone()), key=lambda agent: (RANK.get(agent.status, 2), agent.name))


def working() -> list[Working]:
    """The runs that are going on, the longest first. One whose server died reads so for a minute: a later one of its task is the truth."""
    return db.all(Working, """
        SELECT agent_runs.id, agent_runs.agent, agent_runs.task_id, tasks.title, agent_runs.started_at
          FROM agent_runs LEFT JOIN tasks ON tasks.id = agent_runs.task_id AND tasks.tenant_id = :tenant
         WHERE agent_runs.tenant_id = :tenant AND agent_runs.status = 'running'
           AND NOT EXISTS (SELECT 1 FROM agent_runs AS later WHERE later.tenant_id = :tenant AND later.task_id = agent_runs.task_id
                              AND later.id > agent_runs.id)
         ORDER BY agent_runs.id LIMIT 30""")


def finished() -> list[Finished]:
    """What was done last."""
    return db.all(Finished, """SELECT id, title, assignee, resolution, finished_at FROM tasks WHERE tenant_id = :tenant AND status = 'done'
                                 AND finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT :limit""", limit=SHOWN)


def done_today() -> int:
    """How many tasks were done this local day, counted to 10,000."""
    since = costs.begins(costs.day_of(now()))
    return db.value("""SELECT count(*) FROM (SELECT 1 FROM tasks WHERE tenant_id = :tenant AND status = 'done' AND finished_at >= :since
                                              LIMIT :limit) AS counted""", since=since, limit=LIMIT) or 0


def spent() -> Spent:
    """What this day cost."""
    today = costs.day_of(now())
    found = costs.by("agent", today, today)
    return Spent(sum(row[5] for row in found), sum(row[1] for row in found), [(row[0], row[5]) for row in found[:3] if row[5]])


def depth() -> list[int]:
    """How many jobs were unfinished at each of the last sixty minutes; a second old at most, for many look, and a minute may bring thousands."""
    tenant, moment = current().tenant, time.monotonic()
    kept = _depths.get(tenant)
    if kept is None or moment - kept[0] > FRESH:
        kept = _depths[tenant] = moment, _depth()
    return kept[1]


def _depth() -> list[int]:
    """How many there are now, and backwards what came and went."""
    level = sum(db.value(f"""SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant_id = :tenant AND state = '{state}'
                              LIMIT {LIMIT}) AS counted""") for state in ("waiting", "delayed", "active"))
    minute = now()[:16]
    came, went = (past | fresh for past, fresh in zip(_moved(minute), _count_moves(f"{minute}:00.000Z", "9"), strict=True))
    series = []
    for ago in range(MINUTES):
        series.append(level)
        minute = now(-60 * ago)[:16]
        level = max(0, level - came.get(minute, 0) + went.get(minute, 0))
    return series[::-1]


_depths: dict[int | None, tuple[float, list[int]]] = {}
_moves: dict[int | None, tuple[str, tuple[dict[str, int], dict[str, int]]]] = {}


def forget() -> None:
    """Know nothing of any minute."""
    _moves.clear()
    _depths.clear()


def _moved(minute: str) -> tuple[dict[str, int], dict[str, int]]:
    """How many jobs came and went in each minute of the last hour before this one; looked up once a minute, for what is over stays so."""
    tenant = current().tenant
    kept = _moves.get(tenant)
    if kept is None or kept[0] != minute:
        kept = _moves[tenant] = minute, _count_moves(now(-60 * MINUTES), f"{minute}:00.000Z")
    return kept[1]


def _count_moves(since: str, until: str) -> tuple[dict[str, int], dict[str, int]]:
    came = dict(db.all(tuple, """
        SELECT substr(created_at, 1, 16), count(*) FROM jobs WHERE tenant_id = :tenant AND created_at < :until
           AND id > ifnull((SELECT id FROM jobs WHERE tenant_id = :tenant AND created_at < :since ORDER BY id DESC LIMIT 1), 0)
         GROUP BY 1""", since=since, until=until))
    went: dict[str, int] = {}
    for state in ("completed", "failed", "cancelled", "dead"):
        for minute, many in db.all(tuple, f"""SELECT substr(finished_at, 1, 16), count(*) FROM jobs WHERE tenant_id = :tenant
                                               AND state = '{state}' AND finished_at >= :since AND finished_at < :until GROUP BY 1""",
                                   since=since, until=until):
            went[minute] = went.get(minute, 0) + many
    return came, went
