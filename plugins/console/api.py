"""The wire of the console: its pages, under the addresses of the API without `/api`, its door, and its files."""
from urllib.parse import parse_qsl

from orkosi import PUBLIC, Document, Invalid, NotFound, Paging, Problem, Request, may
from plugins import agents, tasks, users
from plugins.console import HEADERS, HTML, KINDS, POLICY, assets, assets_path, can, door, elsewhere, packed, page, plugin, shown, template, today
from plugins.users import cookies

SEE = may("demo")


# ── pages ──


@plugin.get("/", auth=PUBLIC, statuses=(304,), raises=(401, 403))
@shown(SEE)
def home(request: Request) -> Document:
    """The first page: the tasks by status, the agents and their buttons, the last lines of the log"""
    found = today.open_tasks()
    counts = {status: listed.total for status, listed in found.items()} | {"done": today.count_done()}
    return page(request, "now", "Now", tasks=found, counts=counts, finished=today.finished(), order=today.STATUSES,
                staff=today.staff() if can("GET /api/agents") else None,
                lines=today.last_lines() if can("GET /api/logs") else None)


@plugin.get("/tasks/{id}", auth=PUBLIC, statuses=(304,), raises=(401, 403, 404))
@shown(SEE)
def task(request: Request, id: int) -> Document:
    """The page of a task: why it is not running, what came of it, its runs; a feed's links lead here"""
    found = tasks.find(id)
    runs = agents.runs.page(Paging(limit=20), task_id=id).items if can("GET /api/agent-runs") else []
    return page(request, "task", found.title, task=found, why=tasks.why(found), runs=runs)


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
    if me := users.sessions.whose(cookies.held(request)[0]):
        users.end_session(me.user or 0, int(me.credential))
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
    return packed(request, assets()[file], KINDS["." + file.rpartition(".")[2]],
                  {"Content-Security-Policy": POLICY, "Cache-Control": "public, max-age=31536000, immutable"})
