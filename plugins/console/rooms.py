"""Rooms: the pages that are a list with buttons, as data. Each shows what one operation of the API answers.

Owns no table. Surprise: a column's function makes markup, of parts that `esc` or `look` has escaped.
"""
from collections.abc import Callable
from typing import Any, NamedTuple

from bottle import html_escape as esc

from orkosi import Request
from plugins.findings import looks

from . import look
from .acts import Acts, Field
from .asking import seek

Show = Callable[[Any], str]
Column = tuple[str, Show] | tuple[str, Show, str]  # its heading, what it shows, and a class: num, lesser, clip


class Room(NamedTuple):
    """A page. `chips`: a parameter, and its values; `acts` are the buttons of a row, `head` those of the page with its forms,
    `note` a line on all of it."""
    path: str
    title: str
    says: str
    operation: str
    columns: tuple[Column, ...]
    empty: str
    key: Callable[[Any], Any] = lambda one: one.id
    chips: tuple[str, tuple[str, ...]] | None = None
    search: str = ""
    acts: Callable[[Any, Acts], str] = lambda one, act: ""
    head: Callable[[Acts], str] = lambda act: ""
    note: Callable[[Request], str] = lambda request: ""
    live: str = ""
    group: str = "Company"


def text(name: str, most: int = 160) -> Show:
    """A field as words."""
    return lambda one: esc(look.first_line(str(value), most)) if (value := getattr(one, name, None)) not in (None, "") else "–"


def age(name: str) -> Show:
    """A moment, as how long ago."""
    return lambda one: look.age(getattr(one, name))


def state(name: str) -> Show:
    """A state."""
    return lambda one: look.state(getattr(one, name))


def many(name: str) -> Show:
    """A number."""
    return lambda one: look.number(getattr(one, name)) if getattr(one, name) is not None else "–"


def switch(name: str) -> Show:
    """Whether it is on."""
    return lambda one: look.state("enabled" if getattr(one, name) else "disabled")


def link(path: str, name: str) -> Show:
    """A field that leads to its page."""
    return lambda one: f'<a href="{esc(path.replace("{}", look.part(str(getattr(one, name)))))}">{esc(str(getattr(one, name)))}</a>'


def told_to(name: str) -> Show:
    """A field that is not told to everybody."""
    return lambda one: esc(str(value)) if isinstance(value := getattr(one, name), str) else "–"


def every(one: Any) -> str:
    """How often a schedule comes round."""
    return esc(one.cron + (f" {one.tz}" if one.tz else "")) if one.cron else "every " + look.span((one.every_ms or 0) / 1000)


def until(name: str) -> Show:
    """A moment to come."""
    return lambda one: look.coming(getattr(one, name))


def told(one: Any) -> str:
    """A notification: its title, which leads to what it is about, and its words."""
    where = look.leads(one.link)
    title = f'<a href="{esc(where)}">{esc(one.title)}</a>' if where else esc(one.title)
    return f"{title}<p>{esc(look.first_line(one.message, 300))}</p>"


def of_backups(stats: Any) -> str:
    """When the next one is due, and how old the last proof is that one can be restored."""
    if stats is None:
        return ""
    drill = stats.last_drill
    went = "failed" if drill and not drill.ok else f"restored one in {look.span(drill.seconds)}" if drill else ""
    proof = f"The last drill, {look.age(drill.at)}, {went}." if drill else "No drill yet."
    key = "" if stats.recovery_key_confirmed_at else " <b>The recovery key is not kept yet.</b>"
    return f"{look.size(stats.total_bytes)} in {stats.count}; the next {look.coming(stats.next_backup_at)}. {proof}{key}"


def flip(one: Any, act: Acts, operation: str, **names: Any) -> str:
    """The button that turns a thing on or off."""
    to = not one.enabled
    return act("Turn on" if to else "Turn off", operation, {"enabled": to}, undo=operation, undo_body={"enabled": not to},
               say=f"{'On' if to else 'Off'}: {one.name}", **names)


def of_webhook(one: Any, act: Acts) -> str:
    """What may be done with a webhook."""
    change, to = "PATCH /api/webhooks/{id}", "active" if one.status == "paused" else "paused"
    return (act("Resume" if to == "active" else "Pause", change, {"status": to}, undo=change, undo_body={"status": one.status},
                say="Resumed" if to == "active" else "Paused", id=one.id)
            + (act("Test", "POST /api/webhooks/{id}/test", say="A test is sent", id=one.id) if one.status == "active" else "")
            + act("New secret", change, {"rotate_secret": True}, show="secret", say="The secret is another",
                  sure="A new secret? The one before signs as well for some hours more.", id=one.id)
            + act("Delete", "DELETE /api/webhooks/{id}", sure="Delete this webhook, and all that is kept of its deliveries?", say="Deleted",
                  id=one.id))


KINDS = ("github", "stripe", "slack", "standard", "token", "none")
ROLES = ("demo", "viewer", "member", "builder", "editor", "admin")
ROOMS = (
    Room("/logs", "Logs", "What the server and the agents write", "GET /api/logs",
         (("When", lambda one: look.clock(one.created_at)), ("Level", state("level")), ("Who", lambda one: esc(one.agent or "server")),
          ("Line", lambda one: f"<code>{esc(look.first_line(one.message, 400))}</code>", "wide")),
         "Nobody has written anything like that.", chips=("level", ("info", "warn", "error")), search="q", live="log", group="Work"),
    Room("/schedules", "Schedules", "What is done by the clock", "GET /api/schedules",
         (("State", switch("enabled")), ("Name", text("name")), ("When", every), ("What", lambda one: esc(f"task: {one.task.title}" if one.task else
          f"job in {one.queue_name}")), ("Next", until("next_run_at")), ("Last", age("last_run_at"), "lesser"), ("Runs", many("runs"), "num lesser"),
          ("Last error", text("last_error"), "clip")),
         "Nothing is done by the clock yet.", live="schedule job", group="Work",
         acts=lambda one, act: flip(one, act, "PATCH /api/schedules/{id}", id=one.id) + act(
             "Remove", "DELETE /api/schedules/{id}", sure=f"Remove the schedule {one.name}?", say=f"Removed {one.name}", id=one.id),
         head=lambda act: act.form("Add", "POST /api/schedules", (
             Field("name", "Name", required=True), Field("cron", "When, as cron: minute hour day month weekday", value="0 8 * * 1-5", required=True),
             Field("tz", "Time zone", help="Such as Europe/Berlin; this machine's, if empty"), Field("task.title", "Task", required=True),
             Field("task.assignee", "For")), title="Add a schedule of tasks", say="Added")),
    Room("/hooks", "Hooks", "Where other systems deliver, and what that makes", "GET /api/hooks",
         (("State", switch("enabled")), ("Name", text("name")), ("From", text("kind")), ("Makes", lambda one: esc(
             f"task for {one.assignee or 'nobody'}" if one.makes == "task" else f"job in {one.queue_name}")), ("Made", many("made"), "num"),
          ("Left out", many("skipped"), "num lesser"), ("Again", many("repeated"), "num lesser"), ("Refused", many("refused"), "num"),
          ("Last", age("last_at"), "lesser"), ("Last error", text("last_error"), "clip")),
         "No other system delivers anything yet.", live="hook task", group="Server",
         acts=lambda one, act: flip(one, act, "PATCH /api/hooks/{id}", id=one.id) + act(
             "Delete", "DELETE /api/hooks/{id}", sure=f"Delete the hook {one.name}? Its address is gone for good.", say=f"Deleted {one.name}",
             id=one.id),
         head=lambda act: act.form("Add", "POST /api/hooks", (
             Field("name", "Name", required=True), Field("kind", "From", options=KINDS), Field("secret", "Secret of the sender", "secret"),
             Field("header", "Header of its token", help="Of the kind token, such as X-Gitlab-Token"),
             Field("title.pointer", "Title, where it stands in the body", help="A JSON pointer, such as /issue/title"),
             Field("title.text", "Title, where there is none", value="A delivery", required=True),
             Field("assignee", "For")), title="Add a hook that makes tasks", say="Added", show="url")),
    Room("/webhooks", "Webhooks", "Which addresses outside are told of what happens here", "GET /api/webhooks",
         (("State", state("status")), ("Address", lambda one: f'<a href="/webhooks/{one.id}">{esc(look.first_line(one.url, 100))}</a>', "clip"),
          ("Types", lambda one: esc(", ".join(one.types) or "all")), ("For", text("description"), "lesser"), ("Paused", text("paused_for")),
          ("Last", age("last_sent_at")), ("Answered", text("last_response"), "num"), ("Failing", lambda one: look.age(one.failing_since)
           if one.failing_since else "–", "lesser")),
         "No address outside is told of anything.", live="webhook", group="Server", acts=of_webhook,
         head=lambda act: act.form("Add", "POST /api/webhooks", (
             Field("url", "Address", "url", required=True, help="https://…"),
             Field("types", "Types of events", "list", help="Such as task.done, or task.*, with commas between; all, if empty"),
             Field("description", "For")), title="Add a webhook", say="Added", show="secret")),
    Room("/backups", "Backups", "Copies, and whether they can be restored", "GET /api/backups",
         (("Made", age("created_at")), ("File", text("filename")), ("Kind", text("kind"), "lesser"),
          ("Size", lambda one: look.size(one.size_bytes), "num"),
          ("Proven", lambda one: f"<span>{look.state(one.verification)} {look.age(one.verified_at)}</span>")),
         "There is no backup yet.", key=lambda one: one.filename, live="backup", group="Server",
         acts=lambda one, act: act("Verify", "POST /api/backups/{filename}/verify", say=f"Restoring {one.filename} for a trial",
                                   filename=one.filename)
         + act("Delete", "DELETE /api/backups/{filename}", sure=f"Delete {one.filename}? It does not come back.", say="Deleted",
               filename=one.filename),
         note=lambda request: of_backups(seek("GET /api/backups/stats", request)),
         head=lambda act: act("Make one now", "POST /api/backups/trigger", say="A backup is being made", tone="strong")),
    Room("/notifications", "Notifications", "What a person should know", "GET /api/notifications",
         (("State", lambda one: look.state(one.type)), ("What", lambda one: told(one), "wide"), ("When", age("created_at")),
          ("Read", lambda one: look.age(one.read_at) if one.read else "no", "lesser")), "There is nothing to know.", live="notification",
         acts=lambda one, act: "" if one.read else act("Read", "PATCH /api/notifications/{id}/read", say="Read", id=one.id),
         head=lambda act: act("Read all", "PATCH /api/notifications/read-all", say="All read")),
    Room("/credentials", "Credentials", "What agents need to log in elsewhere; never its value", "GET /api/credentials",
         (("Key", text("key")), ("For", text("description")), ("Granted to", lambda one: esc(", ".join(one.grants) or "nobody")),
          ("Age", lambda one: f"{one.age_days} d", "num"), ("Last read", lambda one: look.age(one.last_used_at) + (f" by {esc(one.used_by)}"
           if one.used_by else ""), "lesser"), ("Version", many("version"), "num lesser")), "No secret is kept yet.", key=lambda one: one.key,
         live="credential", group="Server",
         acts=lambda one, act: act("Show once", "GET /api/credentials/{key}", show="value", sure=f"Show the value of {one.key}? It is put on record.",
                                   say="Shown", key=one.key)
         + act("Delete", "DELETE /api/credentials/{key}", sure=f"Delete {one.key}? Agents that need it will fail.", say="Deleted", key=one.key),
         head=lambda act: act.form("Keep", "POST /api/credentials", (
             Field("key", "Key, such as GITHUB_TOKEN", required=True), Field("value", "Value", "secret", required=True), Field("description", "For"),
             Field("grants", "Granted to", "list", help="Names of agents, with commas between")), title="Keep a secret", say="Kept")),
    Room("/discovery-engines", "Engines", "Who looks for work, and files it as tasks", "GET /api/discovery-engines",
         (("State", switch("enabled")), ("Name", text("name")), ("Looks at", text("layer")),
          ("Every", lambda one: look.span(one.schedule_interval_ms / 1000)),
          ("Last", lambda one: f"<span>{look.state(one.last_status)} {look.age(one.last_run_at)}</span>" if one.last_status else "–"),
          ("Found", many("findings"), "num"), ("Cost", lambda one: look.money(one.cost_micros), "num lesser")), "Nobody looks for work yet.",
         key=lambda one: one.slug, live="discovery", group="Work",
         acts=lambda one, act: act("Run now", "POST /api/discovery-engines/{slug}/run", say=f"{one.name} looks", slug=one.slug)
         + flip(one, act, "PATCH /api/discovery-engines/{slug}", slug=one.slug),
         head=lambda act: act.form("Add", "POST /api/discovery-engines", (
             Field("name", "Name", required=True), Field("layer", "Looks at", options=tuple(sorted(looks))),
             Field("description", "For"), Field("schedule_interval_ms", "Every, in milliseconds", "number", 3_600_000)), title="Add an engine",
                 say="Added")),
    Room("/factory-workers", "Factory", "This server's own workers for queues", "GET /api/factory-workers",
         (("State", state("state")), ("Worker", text("label")), ("Queues", lambda one: esc(", ".join(one.queues))),
          ("Busy", lambda one: f"{one.busy} of {one.slots}", "num"), ("Done", many("completed"), "num"), ("Failed", many("failed"), "num"),
          ("An hour", many("throughput_per_hour"), "num lesser"), ("Restarts", many("restarts"), "num lesser"), ("Last error", text("last_error"),
              "clip")),
         "The factory has no worker. Set how many there should be.", live="factory job", group="Work",
         head=lambda act: act.form("Set", "PATCH /api/factory-workers/config", (
             Field("worker_count", "Workers", "number", required=True), Field("max_concurrent", "Jobs that each runs at once", "number"),
             Field("queues", "Queues", "list", help="With commas between")), title="How many workers", say="Set")),
    Room("/integrations", "Integrations", "What is outside, and whether it works", "GET /api/integrations",
         (("State", state("status")), ("Name", text("name")), ("For", text("description")), ("Set by", text("source"), "lesser"),
          ("Found", text("detail"), "clip"), ("Tried", age("checked_at"), "lesser")), "", live="integration", group="Server",
         acts=lambda one, act: act("Try", "GET /api/integrations/{id}/status", say=f"Tried {one.name}", id=one.id) + (act.form(
             "Save", "POST /api/integrations/{id}/configure", [Field(f"fields.{field.name}", field.label, "secret" if field.secret else "text",
                                                                     required=field.required and not field.set) for field in one.fields],
             title=f"Set up {one.name}", say=f"{one.name} is set up", id=one.id) if one.fields else "")),
    Room("/products", "Products", "What the company makes", "GET /api/products",
         (("State", state("status")), ("Name", text("name")), ("Slug", text("slug"), "lesser"), ("What", text("tagline")), ("Changed",
             age("updated_at"))),
         "There is no product yet.", search="q", live="product",
         head=lambda act: act.form("Add", "POST /api/products", (Field("name", "Name", required=True), Field("slug", "Slug"), Field("tagline",
             "In a line")),
                                   title="Add a product", say="Added")),
    Room("/rules", "Rules", "What agents keep to", "GET /api/rules",
         (("Rule", text("rule", 400), "wide"), ("For", text("scope")), ("Category", text("category"), "lesser"), ("Since", age("created_at"))),
         "There is no rule yet.", live="rule",
         acts=lambda one, act: act("Remove", "DELETE /api/rules/{id}", sure="Remove this rule?", say="Removed", id=one.id),
         head=lambda act: act.form("Add", "POST /api/rules", (Field("rule", "Rule", "long", required=True), Field("scope", "For", value="all")),
                                   title="Add a rule", say="Added")),
    Room("/changelog", "Changelog", "What got done", "GET /api/changelog",
         (("When", age("completed_at")), ("What",
                                          lambda one: (f'<a href="/tasks/{one.task_id}">{esc(one.title)}</a>' if one.task_id else esc(one.title))
          + f"<p>{esc(look.first_line(one.summary, 200))}</p>", "wide"), ("By", text("agent")), ("Product", text("product"), "lesser")),
         "Nothing got done yet.", live="task"),
    Room("/automations", "Automations", "Scripts of agents", "GET /api/automations",
         (("State", state("status")), ("Name", text("name")), ("Agent", text("agent_name")), ("Type", text("type"), "lesser"), ("Path",
             text("path"), "clip")),
         "There is no automation yet.", live="automation", group="Work"),
    Room("/files", "Files", "What lies in the workspaces", "GET /api/files",
         (("Name", lambda one: look.link("/files", one.id, one.name)), ("Path", text("path"), "clip"), ("Of", text("workspace")),
          ("Size", lambda one: look.size(one.size), "num"), ("Changed", age("modified_at"))), "There is no file yet.", live="file"),
    Room("/activity-log", "Activity", "Who did what", "GET /api/activity-log",
         (("When", age("created_at")), ("Who", lambda one: esc(f"{one.actor_type} {one.actor_id}")), ("What", text("action")),
          ("To", lambda one: esc(f"{one.entity_type or ''} {one.entity_id or ''}"))), "Nothing happened yet.", live="*"),
    Room("/users", "People", "Everybody of this tenant", "GET /api/users",
         (("Name", text("username")), ("E-mail", told_to("email")), ("Role", told_to("role")),
          ("Since", lambda one: look.age(one.created_at) if isinstance(one.created_at, str) else "–")), "", live="user",
         acts=lambda one, act: act.form("Change", "PATCH /api/users/{id}", (Field("role", "Role", value=one.role, options=ROLES),),
                                        title="Role", say=f"{one.username} has another role", id=one.id)
         + act("Erase", "DELETE /api/users/{id}", sure=f"Erase {one.username} from every record? They do not come back.", say="Erased", id=one.id)
         if isinstance(one.role, str) else ""),
    Room("/teams", "Teams", "Who works on the same", "GET /api/teams",
         (("Name", text("name")), ("For", text("description")), ("Members", many("member_count"), "num"), ("Since", age("created_at"), "lesser")),
         "There is no team yet.", live="team",
         acts=lambda one, act: act.form("Invite", "POST /api/teams/{id}/invites", (Field("email", "E-mail", "email", required=True),),
                                        title="Invite", say="Invited", id=one.id),
         head=lambda act: act.form("Add", "POST /api/teams", (Field("name", "Name", required=True), Field("description", "For")),
                                   title="Add a team", say="Added")),
    Room("/organizations", "Organizations", "Who works together, and their keys", "GET /api/organizations",
         (("Name", text("name")), ("Members", many("member_count"), "num"), ("You are", text("role")), ("Since", age("created_at"), "lesser"),
          ("Keys", lambda one: f'<a href="/organizations/{look.part(one.id)}/api-keys">API keys</a>')),
         "You are in no organization yet; keys belong to one.", live="organization",
         acts=lambda one, act: act.form("Invite", "POST /api/organizations/{id}/invites", (
             Field("email", "E-mail", "email", required=True), Field("role", "As", value="member", options=("admin", "member", "viewer"))),
             title="Invite", say="Invited", id=one.id) if one.role in ("owner", "admin") else "",
         head=lambda act: act.form("Add", "POST /api/organizations", (Field("name", "Name", required=True),),
                                   title="Add an organization", say="Added")),
)


def of_delivery(one: Any, act: Acts) -> str:
    """A delivery is sent again where it is over."""
    return act("Replay", "POST /api/webhooks/{id}/deliveries/{deliveryId}/replay", say=f"{one.type} is sent again", id=one.webhook_id,
               deliveryId=one.id) if one.status in ("delivered", "dead") else ""


DELIVERIES = Room(
    "/webhooks/{id}", "Deliveries", "What was sent, and what came back; kept for 14 days", "GET /api/webhooks/{id}/deliveries",
    (("State", state("status")), ("Type", text("type")), ("Event", text("event_id"), "lesser"), ("Attempts", many("attempts"), "num"),
     ("Last", age("sent_at")), ("Took", lambda one: f"{one.took_ms} ms" if one.took_ms is not None else "–", "num lesser"),
     ("Answered", text("response_status"), "num"),
     ("With", text("response_body"), "clip"), ("Error", text("error"), "clip"), ("Due", lambda one: look.coming(one.due_at)
      if one.status == "waiting" else "–", "lesser")),
    "Nothing was sent in the last 14 days.", chips=("status", ("waiting", "sending", "delivered", "dead")), acts=of_delivery, live="*")
