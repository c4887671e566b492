"""The end of what runs of an agent that the breaker has paused: a job, for processes are ended outside of the write that paused it."""
from orkosi import Struct
from plugins import queue, supervisor
from plugins.agents import Agent, seek
from plugins.agents.loading import end_brain
from plugins.agents.paths import finished, plist_of
from plugins.agents.turns import turn_of

from . import plugin


class Ending(Struct):
    """Which agent's process is to end."""
    agent: str


@plugin.job("costs.end")
def end(order: Ending) -> bool:
    """End what runs of an agent that the breaker has paused, unless somebody resumed it meanwhile; its job waits, at no cost of an attempt."""
    with turn_of(order.agent):  # it may be resumed just now
        return _end(seek(order.agent))


def _end(agent: Agent | None) -> bool:
    if agent is None or agent.wanted == "running":
        return False
    if agent.local:
        plist = plist_of(agent.name)
        if supervisor.status(plist).loaded:
            supervisor.end(plist)
        end_brain(agent.name)
    queue.release_active(agent.queue, but=finished(agent.name))
    return True
