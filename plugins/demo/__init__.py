"""Demo: a small company that runs by itself, for `serve --demo` on an empty data folder.

Owns no table; it does what an operator would do. Two products, three agents whose brains are short
shell scripts, and a dozen tasks that wait for each other. On a folder that holds anything it does
nothing, and says so.
"""
import threading
from pathlib import Path
from typing import Any

from orkosi import HOST_TENANT, Plugin, Struct, across_tenants, acting, db, settings
from plugins import agents, keys, products, server, tasks, users

plugin = Plugin("Demo", layer="views")
EMAIL = "demo@example.com"
SCOPES = ("tasks:read", "tasks:write", "agents:read", "agents:control", "products:read", "queue:submit", "queue:work")

PRODUCTS = (("Lighthouse", "lighthouse", "Weather for small harbours"), ("Almanac", "almanac", "A calendar that explains itself"))

READ_TITLE = r"""#!/bin/sh
# A brain: the task comes as JSON on stdin, what is printed is the resolution, exit 0 is done.
title=$(sed -n 's/.*"title": "\([^"]*\)".*/\1/p')
"""
BRAINS = {
    "ada": ("Builder", "🔧", READ_TITLE + r"""echo "reading the code for: $title" >&2
sleep 1
echo "three files changed, tests pass" >&2
echo "Built: $title. Three files changed, tests pass."
"""),
    "bruno": ("Writer", "🖋️", READ_TITLE + r"""echo "drafting: $title" >&2
sleep 1
printf '{"tokens_in": 1840, "tokens_out": 420, "cost_micros": 7600, "note": "one draft, no revisions"}' > "$ORKOSI_REPORT"
echo "Written: $title. 420 words, ready to be read."
"""),
    "clara": ("Operations", "🛟", READ_TITLE + r"""echo "looking at the machine: $(uname -s)" >&2
sleep 1
echo "Checked: $title. Free disk: $(df -k . | awk 'NR == 2 {print int($4 / 1048576)}') GB, load: $(uptime | sed 's/.*load average[s]*: //')."
"""),
}


class Plan(Struct):
    """A task to create."""
    title: str
    assignee: str
    product_slug: str
    type: str
    priority: str = "P2"
    description: str = ""


# What each waits for, by place in this list.
PLANS: tuple[tuple[Plan, tuple[int, ...]], ...] = (
    (Plan("Sketch the tide table", "ada", "lighthouse", "feature", "P0"), ()),
    (Plan("Read the harbour's feed", "ada", "lighthouse", "feature", "P1"), (0,)),
    (Plan("Fix the time zone of Funchal", "ada", "lighthouse", "bug", "P0"), ()),
    (Plan("Draw leap years right", "ada", "almanac", "bug", "P2"), ()),
    (Plan("Write the welcome page", "bruno", "lighthouse", "content", "P1"), ()),
    (Plan("Explain what a solstice is", "bruno", "almanac", "content", "P2"), ()),
    (Plan("Announce the tide table", "bruno", "lighthouse", "content", "P1"), (0, 4)),
    (Plan("Collect what readers asked", "bruno", "almanac", "research", "P3"), ()),
    (Plan("Check the disk", "clara", "lighthouse", "ops", "P0"), ()),
    (Plan("Check the load", "clara", "almanac", "ops", "P1"), ()),
    (Plan("Prepare the release", "clara", "lighthouse", "infra", "P1"), (1, 2, 6)),
    (Plan("Tell everybody that it is out", "bruno", "lighthouse", "content", "P0"), (10,)),
)

_asked = threading.Event()


@plugin.on("serving")
def remember(event: str, folder: object, demo: bool = False, **_: Any) -> None:
    """Keep that a demo was asked for; the work begins with the services."""
    if demo:
        _asked.set()


@plugin.service
def seed(stop: threading.Event) -> None:
    """Seed the company once, where it was asked for and the folder is empty."""
    if not _asked.is_set():
        return
    _asked.clear()
    if not empty():
        print(f"--demo: {settings.data} is not empty, so nothing is seeded; choose a new folder with --data", flush=True)
        return
    password = users.random_password()
    admin = users.add("demo", EMAIL, users.passwords.hashed(password), "admin", HOST_TENANT)
    _, key = keys.issue(HOST_TENANT, "demo", SCOPES, by=admin.id)
    with acting(users.actor_of(admin)):
        found()
    print(greeting(server.local_url(), password, key), flush=True)


@across_tenants
def empty() -> bool:
    """Whether nobody has an account here, and nothing was made."""
    return users.unclaimed() and not db.value("""
        SELECT 1 WHERE EXISTS (SELECT 1 FROM agents) OR EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM products)
                    OR EXISTS (SELECT 1 FROM jobs)""")


def found() -> None:
    """Make the company: products, agents with their brains, tasks."""
    from orkosi import current
    for name, slug, tagline in PRODUCTS:
        products.create(name, slug, tagline=tagline, status="building")
    for name, (role, emoji, brain) in BRAINS.items():
        agents.bootstrap.make(name, {"role": role, "emoji": emoji, "interval_sec": 2})
        _give(agents.state.folder_of(name) / "workspace" / "brain", brain)
    ids: list[int] = []
    for plan, waits in PLANS:
        task, _ = tasks.create(plan, current(), [ids[place] for place in waits])
        ids.append(task.id)


def _give(path: Path, brain: str) -> None:
    path.write_text(brain)
    path.chmod(0o700)


def greeting(url: str, password: str, key: str) -> str:
    """What a newcomer needs to look around."""
    return f"""
A small company is at work: ada builds, bruno writes, clara looks after the machine.

  Log in    {url}/api/docs   {EMAIL}   {password}

  Watch     curl -s -H 'Authorization: Bearer {key}' '{url}/api/tasks?limit=12'
  Look at   curl -s -H 'Authorization: Bearer {key}' '{url}/api/agents/bruno'
  Give      curl -s -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
                 -d '{{"title": "Count the gulls", "assignee": "clara"}}' '{url}/api/tasks'
"""
