"""Handing agents to the supervisor, and ending what runs of them."""
from orkosi import Unavailable
from plugins import supervisor
from plugins.supervisor import processes

from .paths import folder_of, plist_of
from .rows import Agent

GRACE = 3.0  # seconds a leftover brain has to end


def load(agent: Agent) -> None:
    """Have the supervisor run an agent. Unavailable where it does not take it."""
    supervisor.load(plist_of(agent.name))
    if not supervisor.status(plist_of(agent.name)).loaded:
        raise Unavailable(f"The supervisor does not list {agent.name}")


def unload(agent: Agent) -> None:
    """Have the supervisor end an agent and forget it; a brain that outlived its runner goes, too."""
    supervisor.unload(plist_of(agent.name))
    end_brain(agent.name)


def end_brain(name: str) -> None:
    """End the brain that a runner which was killed left behind, with its whole process group."""
    file = folder_of(name) / "brain.pid"
    if left := processes.remembered(file):
        processes.end_group(left.pid, GRACE)
    file.unlink(missing_ok=True)
