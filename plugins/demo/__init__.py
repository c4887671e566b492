"""Demo: a small company that runs by itself, for `serve --demo` on an empty data folder.

Owns no table; it does what an operator would do. Two products, three agents whose brains are short
shell scripts, and a dozen tasks that wait for each other. On a folder that holds anything it does
nothing, and says so.
"""
import threading
from pathlib import Path
from typing import Any

import msgspec

from orkosi import HOST_TENANT, Plugin, across_tenants, acting, db, settings
from plugins import agents, discovery, keys, products, server, tasks, users
from plugins.tasks import NewTask

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


# What each waits for, by place in this list.
PLANS: tuple[tuple[NewTask, tuple[int, ...]], ...] = (
    (NewTask("Sketch the tide table", assignee="ada", product_slug="lighthouse", type="feature", priority="P0"), ()),
    (NewTask("Read the harbour's feed", assignee="ada", product_slug="lighthouse", type="feature", priority="P1"), (0,)),
    (NewTask("Fix the time zone of Funchal", assignee="ada", product_slug="lighthouse", type="bug", priority="P0"), ()),
    (NewTask("Draw leap years right", assignee="ada", product_slug="almanac", type="bug", priority="P2"), ()),
    (NewTask("Write the welcome page", assignee="bruno", product_slug="lighthouse", type="content", priority="P1"), ()),
    (NewTask("Explain what a solstice is", assignee="bruno", product_slug="almanac", type="content", priority="P2"), ()),
    (NewTask("Announce the tide table", assignee="bruno", product_slug="lighthouse", type="content", priority="P1"), (0, 4)),
    (NewTask("Collect what readers asked", assignee="bruno", product_slug="almanac", type="research", priority="P3"), ()),
    (NewTask("Check the disk", assignee="clara", product_slug="lighthouse", type="ops", priority="P0"), ()),
    (NewTask("Check the load", assignee="clara", product_slug="almanac", type="ops", priority="P1"), ()),
    (NewTask("Prepare the release", assignee="clara", product_slug="lighthouse", type="infra", priority="P1"), (1, 2, 6)),
    (NewTask("Tell everybody that it is out", assignee="bruno", product_slug="lighthouse", type="content", priority="P0"), (10,)),
)

# What is looked for, each hour.
ENGINES = (("What stands still", "tasks", "Tasks that are blocked, or that nobody has touched for a week"),
           ("The safety net", "backups", "Whether there is a backup of late, and whether it can be restored"))

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
    print(greeting(server.local_url(), users.cookies.link_for(admin.id), password, key), flush=True)


@across_tenants
def empty() -> bool:
    """Whether nobody has an account here, and nothing was made."""
    return users.unclaimed() and not db.value("""
        SELECT 1 WHERE EXISTS (SELECT 1 FROM agents) OR EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM products)
                    OR EXISTS (SELECT 1 FROM jobs)""")


def found() -> None:
    """Make the company: products, agents with their brains, tasks, and what looks for more of them."""
    for name, slug, tagline in PRODUCTS:
        products.create(name, slug, tagline=tagline, status="building")
    for name, (role, emoji, brain) in BRAINS.items():
        agents.create(agents.NewAgent(name=name, role=role, emoji=emoji, interval_sec=2))
        _give(agents.folder_of(name) / "workspace" / "brain", brain)
    ids: list[int] = []
    for plan, waits in PLANS:
        task, _ = tasks.create(msgspec.structs.replace(plan, blocked_by=[ids[place] for place in waits]))
        ids.append(task.id)
    for name, layer, description in ENGINES:
        discovery.create({"name": name, "layer": layer, "description": description, "schedule_interval_ms": 3_600_000})


def _give(path: Path, brain: str) -> None:
    path.write_text(brain)
    path.chmod(0o700)


def greeting(url: str, link: str, password: str, key: str) -> str:
    """What a newcomer needs to look around."""
    return f"""
A small company is at work: ada builds, bruno writes, clara looks after the machine.

  Look      {url}{link}   (once; later {url} with {EMAIL} and {password})

  Watch     curl -s -H 'Authorization: Bearer {key}' '{url}/api/tasks?limit=12'
  Look at   curl -s -H 'Authorization: Bearer {key}' '{url}/api/agents/bruno'
  Give      curl -s -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
                 -d '{{"title": "Count the gulls", "assignee": "clara"}}' '{url}/api/tasks'
"""
