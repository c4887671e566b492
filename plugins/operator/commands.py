"""Commands for agents, tasks and runs. They read as the API does, and are answered by it: the server must run."""
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from orkosi import DATA, settings
from plugins.agents.adapters import AdapterName
from plugins.agents.commands import rekey

from . import plugin
from .caller import ask, every, show

JSON = click.option("--json", "as_json", is_flag=True, help="Print the API's own answer")
NOTE = click.option("--note", help="Why; it is shown with the agent")
LIMIT = click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
AGENTS = {"name": lambda one: one["name"], "status": lambda one: one["status"], "brain": lambda one: one["adapter"] or _program(one),
          "model": lambda one: one["model"], "every": lambda one: f"{one['interval_sec']} s", "task": lambda one: one["current_task"],
          "note": lambda one: one["note"]}
TASKS = {"id": lambda one: one["id"], "status": lambda one: one["status"], "priority": lambda one: one["priority"],
         "assignee": lambda one: one["assignee"], "title": lambda one: one["title"],
         "why": lambda one: (one["why"] or [{"sentence": ""}])[0]["sentence"]}
RUNS = {"id": lambda one: one["id"], "agent": lambda one: one["agent"], "task": lambda one: one["task_id"], "status": lambda one: one["status"],
        "seconds": lambda one: None if one["duration_ms"] is None else round(one["duration_ms"] / 1000, 1), "in": lambda one: one["tokens_in"],
        "out": lambda one: one["tokens_out"], "$": lambda one: f"{one['cost_micros'] / 1e6:.4f}", "started": lambda one: one["started_at"],
        "error": lambda one: one["error"]}


def _program(agent: dict[str, Any]) -> str:
    return " ".join(agent["command"] or ["brain"])


def _data(fn: Callable[..., None]) -> Callable[..., None]:
    """Give a command --data and --json, and find the settings first."""
    def told(data: Path | None, **given: Any) -> None:
        settings.load(data=data)
        fn(**given)
    told.__doc__, told.__click_params__ = fn.__doc__, getattr(fn, "__click_params__", [])  # type: ignore[attr-defined]
    return DATA(JSON(told))


def _group(name: str, sentence: str) -> click.Group:
    made = click.Group(name, help=sentence)
    plugin.commands.append(made)
    return made


# ── agents ──

agent = _group("agent", "Make, see and steer agents.")
agent.add_command(rekey)


@agent.command("add")
@click.argument("name")
@click.option("--adapter", type=click.Choice(get_args(AdapterName)), help="The tool that is its brain")
@click.option("--model", help="The model that its tool asks")
@click.option("--base-url", help="Where that model is, if not at its maker's")
@click.option("--command", help="A program that is its brain, with its arguments, quoted as for a shell")
@click.option("--template", help="The slug of a template that it is made from")
@click.option("--role")
@click.option("--delegates", is_flag=True, default=None, help="It may give parts of its tasks to other agents")
@click.option("--display-name")
@click.option("--interval", "interval_sec", type=int, help="Seconds from one look for work to the next")
@_data
def add(name: str, command: str | None, as_json: bool, **fields: Any) -> None:
    """Make an agent of this machine: `agent add felix --adapter claude-code`."""
    body = {"name": name, "command": shlex.split(command) if command else None, **fields}
    made, meta = ask("POST", "/agents", {field: value for field, value in body.items() if value is not None})
    for warning in meta.get("warnings", ()):
        click.echo(f"orkosi: {warning}", err=True)
    for step in made["steps"]:
        if not step["ok"]:
            click.echo(f"orkosi: step {step['step']}, {step['name']}: {step['detail']}", err=True)
    show(made if as_json else [made], as_json, AGENTS)


@agent.command("list")
@click.option("--status", help="Only those: idle, working, paused, stopped, offline, …; several between commas")
@_data
def agents(status: str | None, as_json: bool) -> None:
    """List agents, and what each is doing."""
    show(every("/agents", 100_000, status=status), as_json, AGENTS)


@agent.command("show")
@click.argument("name")
@_data
def one_agent(name: str, as_json: bool) -> None:
    """Show all that is known of an agent."""
    show(ask("GET", f"/agents/{name}")[0], as_json)


def _turn(verb: str, sentence: str) -> None:
    @agent.command(verb, help=sentence)
    @click.argument("name")
    @NOTE
    @_data
    def turn(name: str, note: str | None, as_json: bool) -> None:
        made, _ = ask("POST", f"/agents/{name}/{verb}", {"note": note} if note else {})
        show(made if as_json else [made], as_json, AGENTS)


for _verb, _sentence in {
        "start": "Start an agent that is stopped or paused.", "stop": "Stop an agent: its brain is ended, and its job waits again.",
        "restart": "End what runs of an agent, and start it anew.", "pause": "Let an agent finish what it has, and take no more.",
        "resume": "Let a paused agent take jobs again."}.items():
    _turn(_verb, _sentence)


@agent.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on, until it is interrupted")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=50, show_default=True)
@click.option("--level", type=click.Choice(["info", "warn", "error"]))
@_data
def agent_logs(name: str, follow: bool, lines: int, level: str | None, as_json: bool) -> None:
    """Print the last lines of an agent's log."""
    ask("GET", f"/agents/{name}")
    found = every("/logs", lines, agent=name, level=level)[::-1]
    last = found[-1]["id"] if found else 0
    _lines(found, as_json)
    while follow:
        time.sleep(1.0)
        fresh = [one for one in every("/logs", 1000, agent=name, level=level) if one["id"] > last][::-1]
        last = fresh[-1]["id"] if fresh else last
        _lines(fresh, as_json)


def _lines(found: list[dict[str, Any]], as_json: bool) -> None:
    for one in found:
        click.echo(json.dumps(one, ensure_ascii=False) if as_json else f"{one['created_at']} {one['level']:5} {one['message']}")


# ── tasks ──

task = _group("task", "Give tasks, see what became of them, and settle them.")


@task.command("add")
@click.argument("title")
@click.option("--assignee", help="An agent, or a person")
@click.option("--description")
@click.option("--priority", type=click.Choice(["P0", "P1", "P2", "P3"]))
@click.option("--type", "type", type=click.Choice(["feature", "bug", "research", "ops", "infra", "content", "other"]))
@click.option("--product", "product_slug", help="The slug of a product")
@click.option("--due", "due_date", help="The day by which it must be done, such as 2026-08-31")
@click.option("--part-of", "parent_id", type=int, help="The number of a task that this one is a part of, and that waits for it")
@click.option("--after", "blocked_by", type=int, multiple=True, help="The number of a task that must be done before; may be given several times")
@_data
def add_task(blocked_by: tuple[int, ...], as_json: bool, **fields: Any) -> None:
    """Give a task: `task add "Check the shop" --assignee felix`."""
    body = {name: value for name, value in fields.items() if value is not None} | ({"blocked_by": list(blocked_by)} if blocked_by else {})
    made, meta = ask("POST", "/tasks", body)
    for said in [*([meta["message"]] if meta.get("duplicate") else []), *meta.get("warnings", ())]:
        click.echo(f"orkosi: {said}", err=True)
    show(made if as_json else [made], as_json, TASKS)


@task.command("list")
@click.option("--status", help="Only those: todo, in_progress, review, done, blocked, archived; several between commas")
@click.option("--assignee")
@click.option("--query", "q", help="Words of its title or description")
@LIMIT
@_data
def tasks(limit: int, as_json: bool, **query: Any) -> None:
    """List tasks, newest first, and why the open ones wait."""
    show(every("/tasks", limit, **query), as_json, TASKS)


@task.command("show")
@click.argument("id", type=int)
@_data
def one_task(id: int, as_json: bool) -> None:
    """Show a task: its result, or why it waits."""
    show(ask("GET", f"/tasks/{id}")[0], as_json)


@task.command("done")
@click.argument("id", type=int)
@click.option("--resolution", help="What came of it")
@_data
def done(id: int, resolution: str | None, as_json: bool) -> None:
    """Say that a task is done."""
    made, _ = ask("PATCH", f"/tasks/{id}", {"status": "done"} | ({"resolution": resolution} if resolution else {}))
    show(made if as_json else [made], as_json, TASKS)


# ── runs, and the whole ──


@plugin.command("runs")
@click.option("--agent")
@click.option("--task", "task_id", type=int)
@click.option("--status")
@LIMIT
@_data
def runs(limit: int, as_json: bool, **query: Any) -> None:
    """List runs, newest first: what each came to, and what it cost."""
    show(every("/agent-runs", limit, **query), as_json, RUNS)


NEEDS = {"what": lambda one: one["title"], "detail": lambda one: one["detail"], "since": lambda one: one["since"], "where": lambda one: one["link"],
         "do": lambda one: one["steps"][0]["label"] if one["steps"] else None}


@plugin.command("needs")
@_data
def needs(as_json: bool) -> None:
    """List what waits for a person, decisions first."""
    found, _ = ask("GET", "/dashboard/needs")
    if as_json or found["needs"]:
        return show(found if as_json else found["needs"], as_json, None if as_json else NEEDS)
    return click.echo("Nothing waits for you")


@plugin.command("status")
@_data
def status(as_json: bool) -> None:
    """Say how the company is: the server, its agents, its tasks, and what needs somebody."""
    health, _ = ask("GET", "/health")
    states: dict[str, int] = {}
    for one in every("/agents", 100_000):
        states[one["status"]] = states.get(one["status"], 0) + 1
    counts = {name: ask("GET", "/tasks", status=name, limit=1)[1]["total"] for name in ("todo", "in_progress", "review", "blocked", "done")}
    need = [one | {"why": one["why"] or []} for one in every("/tasks", 20, status="review,blocked")]
    if as_json:
        return show({"server": health, "agents": states, "tasks": counts, "needs": need}, True)
    show({"server": f"{health['status']}, {health['version']}, up {health['uptime']:.0f} s", "data": str(settings.data),
          "agents": ", ".join(f"{number} {name}" for name, number in sorted(states.items())) or "none",
          "tasks": ", ".join(f"{number} {name}" for name, number in counts.items())}, False)
    return show(need, False, TASKS) if need else None
