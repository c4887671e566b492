"""Handing agents to the supervisor, and ending what runs of them."""
from orkosi import Conflict, Unavailable
from plugins import automations, supervisor
from plugins.supervisor import trees

from .paths import brain_mark, folder_of, label_of, plist_of
from .rows import Agent

GRACE = 3.0  # seconds a leftover brain has to end


def load(agent: Agent, *, gently: bool = False) -> None:
    """Have the supervisor run an agent; `gently`: what runs of it runs on, where only its plist has changed.

    Conflict where its launch agent is disabled, Unavailable where it is not taken.
    """
    may_load(agent)
    supervisor.load(plist_of(agent.name), gently=gently)
    if not supervisor.status(plist_of(agent.name)).loaded:
        raise Unavailable(f"The supervisor does not list {agent.name}")


def may_load(agent: Agent) -> None:
    """Conflict where an operator disabled the agent's launch agent: then nothing loads it but enabling it."""
    for one in automations.of_agents([agent.name])[agent.name]:
        if one.type == automations.LAUNCHED and one.label == label_of(agent.name) and one.status == "disabled":
            raise Conflict(f"The launch agent of {agent.name} is disabled; enable it with PATCH /api/automations/{one.id} {{\"status\": \"active\"}}")


def unload(agent: Agent) -> None:
    """Have the supervisor end an agent and forget it; a brain that outlived its runner goes, too."""
    supervisor.unload(plist_of(agent.name))
    end_brain(agent.name)


def end_brain(name: str) -> None:
    """End the brain that a runner which was killed left behind, with all that it started."""
    trees.end_left(folder_of(name) / "brain.pid", brain_mark(name), GRACE)
