"""Needs: what waits for a person, the decisions first, then what is broken; and what stands still because somebody wanted it so.

Owns nothing. Surprise: things of one cause are one need, so that a network that was down for an hour is a line and not three hundred.
"""
import re
import time
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from orkosi import HOST_TENANT, RANKS, Struct, current, db, now
from plugins import agents, health, queue, vault, webhooks
from plugins.agents.rows import everyone
from plugins.agents.state import Glance

from . import plugin

MOST = 200       # tasks of one status that are looked at
REVIEWS = 12     # that are shown each by itself
COUNTED = 10_000
Kind = Literal["review", "blocked", "dead", "agent", "queue", "budget", "server", "webhook", "held", "paused"]
STILL = ("held", "paused")


class NeedStep(Struct):
    """What may be done: an operation of the API, for each of the need's `ids` in the place of what stands in braces; `undo` takes it back."""
    label: str
    operation: str
    body: dict[str, Any] = {}
    undo: str | None = None
    undo_body: dict[str, Any] = {}


class Need(Struct):
    """One thing that waits for a person. `link` is its page; `state` is that of a task, a job or an agent."""
    kind: Kind
    key: str
    state: str
    title: str
    detail: str
    since: str | None
    link: str
    count: int
    ids: list[str]
    steps: list[NeedStep]


class Needs(Struct):
    """What waits for a person, and what stands still because somebody wanted it so."""
    needs: list[Need]
    still: list[Need]


def needs(staff: list[Glance] | None = None) -> Needs:
    """All of it; `staff` where whoever asks has looked at the agents already."""
    people = agents.state.glance(everyone()) if staff is None else staff
    found = [*reviews(), *blocked(), *dead(), *of_agents(people), *unclaimed(), *budgets(), *of_webhooks(), *of_server()]
    return Needs([one for one in found if one.kind not in STILL], [one for one in found if one.kind in STILL])


def cause(error: str | None) -> str:
    """What errors of one cause have in common: their last line, where programs write what went wrong, without the numbers in it."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", last_line(error))


def last_line(error: str | None) -> str:
    """The line of an error that says most."""
    return ((error or "no reason given").strip().splitlines() or ["no reason given"])[-1][:200]


# ── tasks and jobs ──

PATCH = "PATCH /api/tasks/{id}"


def reviews() -> list[Need]:
    """Tasks that wait for somebody's word; the newest, and a line for the rest."""
    rows = db.all(tuple, """SELECT id, title, CASE WHEN reason = 'question' THEN last_error ELSE resolution END, last_error, updated_at
                               FROM tasks WHERE tenant_id = :tenant AND status = 'review'
                             ORDER BY id DESC LIMIT :most""", most=REVIEWS)
    steps = [NeedStep(label, PATCH, {"status": status}, PATCH, {"status": "review"}) for label, status in (("Done", "done"), ("Back to do", "todo"))]
    return [Need("review", f"t{id}", "review", title, first_line(result or error), at, f"/tasks/{id}", 1, [str(id)], steps)
            for id, title, result, error, at in rows]


def first_line(text: str | None) -> str:
    """The beginning of a text."""
    return ((text or "").strip().splitlines() or [""])[0][:300]


def blocked() -> list[Need]:
    """Blocked tasks, those of one cause together, the commonest first."""
    causes: dict[str, list[tuple[Any, ...]]] = {}
    for row in db.all(tuple, """SELECT id, title, last_error, updated_at FROM tasks WHERE tenant_id = :tenant AND status = 'blocked'
                                 ORDER BY id DESC LIMIT :most""", most=MOST):
        causes.setdefault(cause(row[2]), []).append(row)
    step = NeedStep("Try again", PATCH, {"status": "todo"}, PATCH, {"status": "blocked"})
    found = []
    for rows in sorted(causes.values(), key=lambda rows: -len(rows)):
        (id, title, error, _), many = rows[0], len(rows)
        found.append(Need("blocked", f"b{id}", "blocked", title if many == 1 else f"{many} tasks are blocked by the same error", last_line(error),
                          rows[-1][3], f"/tasks/{id}" if many == 1 else "/tasks?status=blocked", many, [str(row[0]) for row in rows], [step]))
    return found


def dead() -> list[Need]:
    """Queues with dead jobs; not those of agents, whose tasks are blocked, and stand there already."""
    found = []
    for name in queue.names():
        many = 0 if name.startswith("agent:") else db.value("""
            SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'dead' AND finished_at IS NOT NULL
                                   LIMIT :most) AS counted""", queue=name, most=COUNTED)
        if many:
            since = db.value("""SELECT max(finished_at) FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'dead'
                                 AND finished_at IS NOT NULL""", queue=name)
            words = f"{number(many)} {'job has' if many == 1 else 'jobs have'} used up all attempts in {name}"
            found.append(Need("dead", f"q{name}", "dead", words, "", since, f"/task-queue?queue_name={name}&status=dead", many, [],
                              [NeedStep("Retry all", "POST /api/task-queue/retry", {"queue_name": name})]))
    return sorted(found, key=lambda one: -one.count)


def number(many: int) -> str:
    """A number, or that there are more than were counted."""
    return f"{many:,}" + ("+" if many == COUNTED else "")


def unclaimed() -> list[Need]:
    """Queues in which something waits and nobody works."""
    found = []
    for name in queue.names():
        first = db.all(queue.Job, """SELECT * FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'waiting'
                                      ORDER BY priority, id LIMIT 1""", queue=name)
        why = next((one for one in (queue.why(first[0]) if first else ()) if one.code in ("no_worker", "agent_unknown", "queue_paused")), None)
        if why is None or (why.code == "queue_paused" and name.startswith("agent:")):
            continue  # of a paused agent, its need says so
        paused, many = why.code == "queue_paused", waiting(name)
        steps = [NeedStep("Resume", "POST /api/bull-queue/{queue}/resume", {}, "POST /api/bull-queue/{queue}/pause")] if paused else []
        found.append(Need("paused" if paused else "queue", f"w{name}", "paused" if paused else "waiting", f"{number(many)} waiting in {name}",
                          why.sentence, first[0].created_at, f"/task-queue?queue_name={name}", many, [name], steps))
    return found


def waiting(name: str) -> int:
    """How many jobs wait in a queue, counted to 10,000."""
    return int(db.value("""SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant_id = :tenant AND queue = :queue AND state = 'waiting'
                                                  LIMIT :most) AS counted""", queue=name, most=COUNTED))


# ── agents and their budgets ──


def of_agents(people: Iterable[Glance]) -> list[Need]:
    """Agents that should run and do not, those that were half made, and those that somebody stopped while work waits for them."""
    found = []
    for one in people:
        about, page = (f"a{one.name}", [one.name]), f"/agents/{one.name}"
        failed = next((step for step in one.steps if not step.ok), None)
        if one.status in ("offline", "error", "blocked") and one.wanted == "running":
            found.append(Need("agent", about[0], one.status, f"{one.display_name} is {one.status}",
                              one.note or "It should be running, and no process is there", one.last_heartbeat, page, 1, about[1],
                              [NeedStep("Restart", "POST /api/agents/{name}/restart")]))
        elif failed:
            found.append(Need("agent", about[0], "error", f"{one.display_name} could not be made", f"{failed.name}: {failed.detail}",
                              one.updated_at, page, 1, about[1], []))
        elif one.wanted != "running" and (many := waiting(one.queue)):
            back, forth = ("resume", "pause") if one.wanted == "paused" else ("start", "stop")
            found.append(Need("held", about[0], one.wanted, f"{number(many)} {'task waits' if many == 1 else 'tasks wait'} for {one.display_name}",
                              f"{one.display_name} is {one.wanted}" + (f": {one.note}" if one.note else ""), one.updated_at, page, many, about[1],
                              [NeedStep(back.capitalize(), f"POST /api/agents/{{name}}/{back}", {}, f"POST /api/agents/{{name}}/{forth}")]))
    return found


def budgets() -> list[Need]:
    """Agents whose budget is used up, or nearly."""
    found = []
    for agent, over, until, warned, at in db.all(tuple, """
            SELECT agent, over, over_until, warned, updated_at FROM agent_budgets WHERE tenant_id = :tenant
               AND (over_until > :now OR warned IS NOT NULL) ORDER BY agent""", now=now()):
        kind, _, rest = (warned or "").partition(" ")
        if until and until > now():
            title, detail = f"{agent} has used up its budget", f"{over}; it goes on at {until}"
        elif kind == "near" and rest.rpartition(" ")[2] > now():
            title, detail = f"{agent} nears its budget", f"Four fifths of {rest.partition(' ')[0].replace('_', ' ')} are used"
        else:
            continue
        found.append(Need("budget", f"m{agent}", "paused", title, detail, at, f"/agents/{agent}", 1, [agent], []))
    return found


# ── who is told of things outside ──

CHANGE = "PATCH /api/webhooks/{id}"
KEPT = "what happens is kept for it, and sent when resumed"


def of_webhooks() -> list[Need]:
    """Webhooks that are paused. For editors and above; by the host's name alone, since whoever knows an address may write there."""
    if current().rank < RANKS["editor"]:
        return []
    found = []
    for one in webhooks.everything():
        kind, state, since, detail = {
            "failing": ("webhook", "error", one.failing_since, f"Nothing got through for three days; {KEPT}"),
            "gone": ("webhook", "error", one.last_sent_at, "It answered 410: it wants no more. Delete it, or resume it"),
            "asked": ("paused", "paused", one.updated_at, f"It was paused; {KEPT}"),
            None: ("", "", None, "")}[one.paused_for]
        if kind:
            found.append(Need(kind, f"k{one.id}", state, f"The webhook to {urlsplit(one.url).hostname} is paused", detail, since,  # type: ignore[arg-type]
                              f"/webhooks/{one.id}", 1, [str(one.id)],
                              [NeedStep("Resume", CHANGE, {"status": "active"}, CHANGE, {"status": "paused"})]))
    return found


# ── the server itself ──


def of_server() -> list[Need]:
    """What the server's own checks found: backups, mail, the vault. For the host's administrators."""
    global _looked
    me = current()
    if me.tenant != HOST_TENANT or me.rank < RANKS["admin"]:
        return []
    if _looked[0] < time.monotonic():
        _looked = time.monotonic() + LOOK, _look()
    return _looked[1]


LOOK = 10.0  # seconds for which the server's own checks are believed
_looked: tuple[float, list[Need]] = 0.0, []


@plugin.on("opened")
def look_anew(event: str, subject: object) -> None:
    """Something is otherwise now."""
    global _looked
    _looked = 0.0, []


def _look() -> list[Need]:
    found = [Need("server", f"h{name}", "error", TITLES.get(name, f"The check {name} failed"), one.detail, None, "/health", 1, [name], [])
             for name, one in sorted(health.checks().items()) if not one.ok and "." not in name]
    if vault.newest() is not None and not vault.confirmed():
        found.append(Need("server", "hkey", "review", "The recovery key is not kept yet", "Write it down, keep it off this machine, then say so: "
                          "python3 orkosi.py vault confirm", None, "/credentials", 1, ["recovery-key"], []))
    return found


TITLES = {"backups": "The backups need a look", "mail": "Mail does not go out", "vault": "The vault does not open",
          "standby": "The second machine is behind"}
