"""What is found in agents: by discovery, those that fail and those that are not heard of; by the search, those of a name."""
from collections.abc import Iterator

from orkosi import Hit, db
from plugins.findings import Finding, Point, checks, finds

from .rows import everyone, plugin
from .state import lacking, look

IN_A_ROW = 3


@finds("agents")
def failing_or_silent() -> Iterator[Finding]:
    """Agents whose last runs all failed, and those that should run and do not."""
    for agent in look(everyone()):
        last = db.all(tuple, """SELECT status, error FROM agent_runs WHERE tenant_id = :tenant AND agent = :name AND status <> 'running'
                                 ORDER BY id DESC LIMIT :many""", name=agent.name, many=IN_A_ROW)
        if len(last) == IN_A_ROW and all(status in ("failed", "timeout", "lost") for status, _ in last):
            yield Finding(f"Agent {agent.name} fails: its last {IN_A_ROW} runs did", f"agents:failing:{agent.name}",
                          f"The last error was: {last[0][1] or 'none was told'}", "P1")
        if agent.status == "offline":
            heard = f"was heard of last at {agent.last_heartbeat}" if agent.last_heartbeat else "was never heard of"
            yield Finding(f"Agent {agent.name} is silent", f"agents:silent:{agent.name}", f"It is to run, and {heard}.", "P1")


@plugin.search("agents")
def search(q: str, limit: int) -> list[Hit]:
    """The agent of this name, and then those with the text in their name or role. There are dozens of them, not thousands."""
    text = q.strip().casefold()
    found = [one for one in everyone() if text and any(text in word.casefold() for word in (one.name, one.display_name, one.role))]
    found.sort(key=lambda one: (one.name.casefold() != text, one.name))
    return [Hit(one.name, one.display_name, f"{one.role}, {one.wanted}") for one in found[:limit]]


checks(plugin, "agents", failing="No agent fails three times in a row", silent="Every agent that is to run is heard of")


@plugin.health("agents.programs")
def programs() -> Point:
    """Whether every agent of this machine has something to run."""
    lacks = [sentence for agent in everyone() for sentence in lacking(agent)]
    return Point(not lacks, lacks[0] if lacks else "Every agent has its program", "Install it, or give the agent another command" if lacks else "")
