"""The wire of the console: its pages, under the addresses of the API without `/api`, its door, and its files."""
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from bottle import html_escape as esc

from orkosi import PUBLIC, Document, Invalid, NotFound, Paging, Problem, Request, may, now, settings
from plugins import agents, costs, dashboard, health, users
from plugins.agents.rows import everyone
from plugins.console import (
    HEADERS,
    HTML,
    KINDS,
    POLICY,
    asked,
    asking,
    assets,
    assets_path,
    board,
    can,
    door,
    elsewhere,
    gzipped,
    look,
    packed,
    page,
    plugin,
    shown,
    template,
    today,
    work,
)
from plugins.console.rooms import DELIVERIES, ROOMS, Room, of_webhook
from plugins.dashboard import needs
from plugins.health import machine
from plugins.users import cookies

SEE = may("demo")
MANY = 50


def _many(request: Request) -> dict[str, Any]:
    """The query of a list's page, with how much of it is shown."""
    return {"limit": MANY, **asked(request)}


# ── what is going on ──


@plugin.get("/", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown(SEE)
def home(request: Request) -> Document:
    """The first page: what needs you, who works, what waits, what it cost"""
    counts = dashboard.tasks().by_status
    if not can("GET /api/agents"):  # the role demo sees tasks alone
        return page(request, "now", "Now", needs=None, counts=counts, finished=today.finished())
    staff = today.staff()
    found = needs.needs(staff)
    many = len(found.needs)
    return page(request, "now", f"({many}) Now" if many else "Now", needs=found.needs, still=found.still, running=today.working(), staff=staff,
                counts=counts, finished=today.finished(), spent=today.spent(), done=today.done_today(), depth=today.depth(),
                first=_first(staff, counts))


def _first(staff: list[Any], counts: dict[str, int]) -> list[tuple[str, str]]:
    """What is to be done first, where a company is new: (what, where)."""
    steps = [] if staff else [("Add an agent", "/agents")]
    if not sum(counts.values()):
        steps.append(("Give it a task", "/tasks"))
    return [*steps, ("Keep the recovery key", "#need-hkey")] if steps and any(one.key == "hkey" for one in needs.of_server()) else steps


@plugin.get("/tasks", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403))
@shown("GET /api/tasks")
def task_board(request: Request) -> Document:
    """The board; with a status, a priority or a word to look for, a list"""
    given = asked(request)
    if given.keys() & {"status", "q", "priority", "type", "offset"}:
        found = asking.answer("GET /api/tasks", request, **_many(request))
        return page(request, "list", look.WORDS.get(given.get("status", ""), "Tasks"), found=found, q=given.get("q", ""))
    chosen = {name: given[name] for name in ("assignee", "product") if given.get(name)}
    counts = board.counts(chosen.get("assignee"), chosen.get("product")) if chosen else dashboard.tasks().by_status
    return page(request, "board", "Tasks", columns=board.COLUMNS, counts=counts, narrowed="".join(f"&{urlencode([one])}" for one in chosen.items()),
                moves=board.MOVES,
                names=[one.name for one in everyone()] if can("GET /api/agents") else [],
                products=[one.slug for one in asking.page(asking.seek("GET /api/products", request, limit=100) or []).items],
                assignee=given.get("assignee", ""), product=given.get("product", ""), may_move=can("PATCH /api/tasks/{id}"),
                cards={status: board.cards(status, given.get("assignee"), given.get("product")) for status in board.COLUMNS})


@plugin.get("/tasks/{id}", auth=PUBLIC, statuses=(304,), raises=(401, 403, 404))
@shown("GET /api/tasks/{id}")
def task(request: Request, id: int) -> Document:
    """The page of a task: why it is not running, what came of it, its runs; a feed's links lead here"""
    found = asking.answer("GET /api/tasks/{id}", request, {"id": str(id)})
    runs = agents.runs.page(Paging(limit=20), task_id=id).items if can("GET /api/agent-runs") else []
    return page(request, "task", found.title, task=found, why=found.why, runs=runs,
                review=asking.seek("GET /api/tasks/{id}/review", request, {"id": str(id)}) if found.status == "review" else None)


# ── who works ──


@plugin.get("/agents", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown("GET /api/agents")
def staff(request: Request) -> Document:
    """The agents, what each is doing, and a form for another"""
    return page(request, "agents", "Agents", staff=today.staff())


@plugin.get("/agents/{name}", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))
@shown("GET /api/agents/{name}")
def agent(request: Request, name: str) -> Document:
    """An agent: its process, its lease, its budget, its runs and the end of its log"""
    found = asking.answer("GET /api/agents/{name}", request, {"name": name})
    runs = asking.seek("GET /api/agent-runs", request, agent=name, limit=20)
    lines = asking.seek("GET /api/logs", request, agent=name, limit=30)
    return page(request, "agent", found.display_name, agent=found, budget=asking.seek("GET /api/agents/{name}/budget", request, {"name": name}),
                runs=runs.items if runs else [], lines=lines.items[::-1] if lines else None)


@plugin.get("/agent-runs", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403))
@shown("GET /api/agent-runs")
def runs(request: Request) -> Document:
    """Runs, newest first"""
    return page(request, "runs", "Runs", found=asking.answer("GET /api/agent-runs", request, **_many(request)),
                chosen=asked(request).get("status", ""))


@plugin.get("/agent-runs/{id}", auth=PUBLIC, statuses=(304,), raises=(401, 403, 404))
@shown("GET /api/agent-runs/{id}")
def run(request: Request, id: int) -> Document:
    """A run, with its log as it is written, and what its brain said"""
    found = agents.runs.find(id)
    of = asking.seek("GET /api/tasks/{id}", request, {"id": str(found.task_id)}) if found.task_id else None
    return page(request, "run", of.title if of else f"Run {id}", run=found, lines=work.lines_of(found) if can("GET /api/logs") else None,
                output=work.output_of(request, id), told=work.told(found))


# ── what waits ──


@plugin.get("/task-queue", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))
@shown("GET /api/task-queue")
def queues(request: Request) -> Document:
    """Queues; with a name or a state, jobs"""
    given = asked(request)
    name, state = given.get("queue_name", ""), given.get("status", "")
    if not name and not state:
        return page(request, "queues", "Queues", queues=work.queues(), depth=_minutes(),
                    health=asking.seek("GET /api/dashboard/agent-queue-health", request) or [])
    found = asking.answer("GET /api/task-queue", request, **_many(request))
    stats = asking.answer("GET /api/task-queue/stats", request, queue_name=name)[0] if name else None
    return page(request, "queue", name or f"Jobs: {look.said(state)}", name=name, state=state, states=work.STATES, stats=stats, found=found,
                causes=work.causes(name, state) if name and state in ("dead", "failed") else [])


def _minutes() -> list[tuple[str, float]]:
    return [("now" if ago == 0 else f"{ago} min ago", many) for ago, many in zip(range(today.MINUTES - 1, -1, -1), today.depth(), strict=True)]


@plugin.get("/task-queue/{id}", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))
@shown("GET /api/task-queue/{id}")
def job(request: Request, id: str) -> Document:
    """A job: its payload, its result, and why it is not running"""
    found = asking.answer("GET /api/task-queue/{id}", request, {"id": id})
    return page(request, "job", found.id, job=found)


@plugin.get("/costs", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403))
@shown("GET /api/costs")
def spending(request: Request) -> Document:
    """What was spent: thirty days as a picture, and by agent, product and model"""
    by = {what: asking.answer("GET /api/costs", request, by=what) for what in ("day", "agent", "product", "model")}
    return page(request, "costs", "Costs", by=by, days=_thirty(by["day"]), spent=today.spent(), budgets=_budgets(request))


def _thirty(found: list[Any]) -> list[today.Day]:
    """The last thirty local days, those on which nothing was spent as well."""
    there = {one.key: one for one in found}
    last = date.fromisoformat(costs.day_of(now()))
    days = [str(last - timedelta(days=ago)) for ago in reversed(range(30))]
    return [today.Day(day, there[day].runs, there[day].cost_micros) if day in there else today.Day(day, 0, 0) for day in days]


def _budgets(request: Request) -> list[Any]:
    found = (asking.seek("GET /api/agents/{name}/budget", request, {"name": one.name}) for one in everyone()[:100])
    return [one for one in found if one and any(getattr(one, name) is not None for name in costs.LIMITS)]


# ── the rest: rooms, as data ──


@plugin.get("/more", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown(SEE)
def more(request: Request) -> Document:
    """All the other pages"""
    return page(request, "more", "More", there=_there())


def _there() -> list[tuple[str, str, str, str]]:
    """(group, address, title, what it is) of each page that whoever asks may see."""
    return [(one.group, one.path, one.title, one.says) for one in ROOMS if can(one.operation)] + [
        (group, path, title, says) for group, path, title, says, operation in OTHERS if can(operation)]


OTHERS = (("Server", "/health", "Health", "How the server and the company are, and what mends them", "GET /api/system/health"),
          ("Server", "/settings", "Settings", "What is set, and where", "GET /api/backups"),
          ("Company", "/billing", "Billing", "The plan, what was used, and what can be bought", "GET /api/billing/plan-summary"),
          ("Work", "/search", "Search", "Tasks, products, agents, files and logs, by a word", "GET /api/search"))


def _room(one: Room) -> Callable[..., Document]:
    def answer(request: Request) -> Document:
        given = asked(request)
        found = asking.page(asking.answer(one.operation, request, **_many(request) if "query" in asking.operations()[one.operation].takes else {}))
        return page(request, "room", one.title, room=one, found=found, given=given, note=one.note(request))
    answer.__name__, answer.__doc__ = "room_" + one.path[1:].replace("-", "_"), f"{one.title}: {one.says[0].lower()}{one.says[1:]}"
    return answer


for _one in ROOMS:
    plugin.get(_one.path, auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))(shown(_one.operation)(_room(_one)))


@plugin.get("/organizations/{orgId}/api-keys", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))
@shown("GET /api/organizations/{orgId}/api-keys")
def api_keys(request: Request, org_id: str) -> Document:
    """The API keys of an organization: made, shown once, rotated, revoked"""
    found = asking.answer("GET /api/organizations/{orgId}/api-keys", request, {"org_id": org_id}, limit=200)
    return page(request, "keys", "API keys", found=found, org=org_id)


@plugin.get("/webhooks/{id}", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403, 404))
@shown("GET /api/webhooks/{id}/deliveries")
def webhook(request: Request, id: int) -> Document:
    """A webhook: what was sent, and what came back"""
    one, given = asking.answer("GET /api/webhooks/{id}", request, {"id": str(id)}), asked(request)
    found = asking.answer(DELIVERIES.operation, request, {"id": str(id)}, **_many(request))
    room = DELIVERIES._replace(path=f"/webhooks/{id}", title=f"Webhook {id}", head=lambda act: of_webhook(one, act))
    return page(request, "room", room.title, room=room, found=found, given=given,
                note=f"{look.state(one.status)} {esc(one.url)}")


@plugin.get("/health", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown("GET /api/system/health")
def well(request: Request) -> Document:
    """How the server and the company are, each finding with its cure"""
    return page(request, "health", "Health", company=health.company(), looked=machine.look(), checks=health.checks())


@plugin.get("/settings", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown(may("admin", host=True))
def settled(request: Request) -> Document:
    """Every setting, its value, and where that comes from; secrets not"""
    return page(request, "settings", "Settings", known=sorted(settings.known.values(), key=lambda one: one.name), values=settings)


@plugin.get("/billing", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown("GET /api/billing/plan-summary")
def bills(request: Request) -> Document:
    """The plan, what is used of it, by day as a picture, and what can be bought"""
    ask = asking.seek
    return page(request, "billing", "Billing", summary=asking.answer("GET /api/billing/plan-summary", request),
                plan=ask("GET /api/billing/subscription", request),
                usage=ask("GET /api/billing/usage", request), pricing=ask("GET /api/billing/pricing", request),
                    topup=ask("GET /api/billing/auto-topup", request),
                overview=ask("GET /api/billing/overview", request))


@plugin.get("/search", auth=PUBLIC, statuses=(304,), raises=(400, 401, 403))
@shown("GET /api/search")
def search(request: Request) -> Document:
    """Tasks, products, agents, files and logs by a word; for the palette its hits alone"""
    q = asked(request).get("q", "").strip()[:100]
    found = asking.answer("GET /api/search", request, q=q) if q else None
    hits = [(name, [(_at(name, one), one.title, one.detail) for one in places]) for name in (found.__struct_fields__ if found else ())
            if (places := getattr(found, name))]
    if request.header("X-Orkosi-Live") == "found":  # the palette: pages, too
        places = [(where, title, says) for _, where, title, says in _there() if q.casefold() in title.casefold()]
        hits = [*hits, ("pages", places)] if places else hits
        return packed(request, template("found").render(hits=hits).encode(), HTML, HEADERS)
    return page(request, "search", "Search", q=q, hits=hits)


def _at(group: str, one: Any) -> str:
    return f"/products?q={look.part(str(one.id))}" if group == "products" else look.leads(one.url)  # a product has no page, but a line


@plugin.get("/files/{id}", auth=PUBLIC, statuses=(304,), raises=(401, 403, 404))
@shown("GET /api/files/{id}")
def file(request: Request, id: int) -> Document:
    """A file of a workspace, with what it says"""
    found = asking.answer("GET /api/files/{id}", request, {"id": str(id)})
    return page(request, "file", found.name, file=found)


# ── the door: plain forms, which work without a script ──


def _form(request: Request) -> dict[str, str]:
    cookies.from_here(request)
    try:
        return dict(parse_qsl(request.body(4096).decode(errors="replace"), max_num_fields=10))
    except ValueError:
        raise Invalid("The form has more fields than its page") from None


@plugin.get("/login", auth=PUBLIC)
def login_page(request: Request) -> Document:
    """The page that asks who one is"""
    return door(request)


@plugin.post("/login", lane="hash", auth=PUBLIC, status=303, raises=(400, 401, 403, 413, 429), max_body=4096)
def log_in(request: Request) -> Document:
    """Log in by the form of that page"""
    form = _form(request)
    where = form.get("next", "/")
    try:
        _, pair = users.log_in(form.get("email", ""), form.get("password", ""), request.header("User-Agent"), request.address)
    except Problem as problem:
        return door(request, problem.message, problem.status, where)
    return elsewhere(where, cookies.kept(request, pair))


@plugin.get("/login/{token}", auth=PUBLIC, status=303, raises=(404, 429, 503), limit="link")
def follow_link(token: str, request: Request) -> Document:
    """Log in by a printed link, once"""
    # A browser that only guesses that its person will come, or a program that looks whether a link is alive, must not use it up.
    if request.method == "HEAD" or "prefetch" in request.header("Sec-Purpose"):
        return Document(b"", HTML, HEADERS, 503)
    user = cookies.follow(token)
    if user is None:
        return door(request, "That link was used, or its time is over. Log in with your password.", 404)
    return elsewhere("/", cookies.kept(request, users.open_session(user.id, request.header("User-Agent"))))


@plugin.post("/logout", auth=PUBLIC, status=303, raises=(400, 403, 413), max_body=4096)
def log_out(request: Request) -> Document:
    """End this browser's session"""
    _form(request)
    access, refresh = cookies.held(request)
    if me := users.sessions.whose(access):
        users.end_session(me.user or 0, int(me.credential))
    elif refresh:
        with suppress(Problem):  # its half hour is over, but not the session
            user, pair = users.sessions.refresh(refresh, request.address)
            users.end_session(user.id, pair.session_id)
    return elsewhere("/login", cookies.dropped(request))


@plugin.get("/setup/{token}", auth=PUBLIC, raises=(404, 429), limit="link")
def set_up_page(token: str, request: Request) -> Document:
    """The page of the one-time set-up link"""
    if not users.claimable(token):
        return door(request, "That set-up link was used, or its time is over. Log in; or, where nobody has an account yet, "
                             "start the server again for a new link.", 404, "/")
    return _set_up(request)


@plugin.post("/setup/{token}", lane="hash", auth=PUBLIC, status=303, raises=(400, 403, 404, 409, 413, 429), limit="link", max_body=4096)
def set_up(token: str, request: Request) -> Document:
    """Make the first administrator by the form of that page, and log in"""
    form = _form(request)
    try:
        user = users.set_up(token, form.get("username", ""), form.get("email", ""), form.get("password", ""))
    except Problem as problem:
        return _set_up(request, problem.message, problem.status, form)
    return elsewhere("/", cookies.kept(request, users.open_session(user.id, request.header("User-Agent"))))


def _set_up(request: Request, said: str = "", status: int = 200, form: dict[str, str] | None = None) -> Document:
    given = form or {}
    text = template("setup").render(said=said, assets=assets_path(), username=given.get("username", ""), email=given.get("email", ""))
    return packed(request, text.encode(), HTML, HEADERS, status)


# ── files ──


@plugin.get("/console/{hash}/{file}", auth=PUBLIC, raises=(404,))
def files(request: Request, hash: str, file: str) -> Document:
    """A file of the console; its address changes with it"""
    if file not in assets():
        raise NotFound(f"There is no {file}")
    squeezed = "gzip" in request.header("Accept-Encoding")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    return Document((gzipped() if squeezed else assets())[file], KINDS["." + file.rpartition(".")[2]],
                    {**headers, "Content-Encoding": "gzip"} if squeezed else headers)
