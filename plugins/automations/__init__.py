"""Automations: which scripts keep running on this machine.

Owns automations. A row names a script or a launch agent; what its file and its process are like
is looked up alive, never stored. Surprise: a path is looked at only inside the data folder, and a
plist is loaded only from `jobs/` in it; any other is kept as a note, for a path given by a client
must become neither a way to run a program nor one to ask what files exist.
"""
import threading
from typing import Annotated, Literal

from orkosi import (
    UNSET,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Problem,
    Struct,
    UnsetType,
    db,
    emit,
    jsoned,
    now,
    writes,
)
from plugins import lists, supervisor
from plugins.fields import terms
from plugins.lists import Listing

plugin = Plugin("Automations", layer="domain")


AutomationStatus = Literal["active", "inactive", "disabled"]
LAUNCHED = "launchagent"  # the type whose path is a plist for the supervisor


Name = Annotated[str, Meta(min_length=1, max_length=200)]
Path = Annotated[str, Meta(min_length=1, max_length=255)]


class NewAutomation(Struct, forbid_unknown_fields=True):
    """An automation to put on record."""
    name: Name
    agent_name: Name
    type: Name
    path: Path
    label: Name | None = None
    status: AutomationStatus = "active"


class AutomationPatch(Struct, forbid_unknown_fields=True):
    """A change to an automation: what is set, is changed."""
    name: Name | UnsetType = UNSET
    agent_name: Name | UnsetType = UNSET
    type: Name | UnsetType = UNSET
    path: Path | UnsetType = UNSET
    label: Name | None | UnsetType = UNSET
    status: AutomationStatus | UnsetType = UNSET


class Automation(Struct):
    """A script or launch agent on record. Only an active one is loaded."""
    id: int
    name: str
    agent_name: str
    type: str
    path: str
    label: str | None
    status: AutomationStatus
    created_at: str
    updated_at: str


# `+type` keeps SQLite from the index of the unique paths, which would have to sort.
LIST = Listing(of=Automation, source="automations", filters={
    "agent_name": "agent_name = :agent_name", "type": "+type = :type", "status": "status = :status",
    "q": "id IN (SELECT rowid FROM automations_fts WHERE automations_fts MATCH :q)"})


def page(query: Paging, q: str | None, agent: str | None) -> Page[Automation]:
    """Automations, newest first; a search without a usable term finds nothing."""
    words = terms(q) if q is not None else None
    if q is not None and words is None:
        return Page.empty(query)
    return lists.page(LIST, query, q=words, agent_name=agent)


def find(id: int) -> Automation:
    """One automation; NotFound."""
    found = db.one(Automation, "SELECT * FROM automations WHERE id = :id AND tenant_id = :tenant", id=id)
    if found is None:
        raise NotFound(f"There is no automation {id}")
    return found


def of_agents(names: list[str]) -> dict[str, list[Automation]]:
    """The automations of each of these agents."""
    found: dict[str, list[Automation]] = {name: [] for name in names}
    for one in db.all(Automation, """
            SELECT automations.* FROM json_each(:names) AS asked JOIN automations ON agent_name = asked.value
             WHERE tenant_id = :tenant ORDER BY id""", names=jsoned(names)):
        found[one.agent_name].append(one)
    return found


@writes
def create(new: NewAutomation) -> Automation:
    """Put one on record. Conflict where that path is recorded with that type."""
    made = db.insert(Automation, "automations", new, created_at=now(), updated_at=now())
    emit("automation.created", made)
    return made


@writes
def change(id: int, patch: AutomationPatch) -> Automation:
    """Change what is sent; NotFound."""
    find(id)
    made = db.patch(Automation, "automations", id, patch)
    emit("automation.updated", made)
    return made


@writes
def put_back(before: Automation) -> None:
    """Undo a change that the supervisor did not follow."""
    db.patch(dict, "automations", before.id, name=before.name, agent_name=before.agent_name, type=before.type, path=before.path, label=before.label,
             status=before.status)
    emit("automation.updated", before)


@writes
def delete(id: int) -> Automation:
    """Take one off the record; NotFound. Its file stays where it is."""
    gone = find(id)
    db.delete("automations", id)
    emit("automation.deleted", gone)
    return gone


@writes
def record(agent: str, type: str, name: str, path: str, label: str | None) -> Automation:
    """Put an agent's own script or plist on record, or correct where it is after the folder moved: it stays the same row, active or not."""
    db.run("""UPDATE automations SET path = :path, label = :label, updated_at = :now
               WHERE id = (SELECT max(id) FROM automations
                            WHERE tenant_id = :tenant AND agent_name = :agent AND type = :type AND name = :name AND label IS NOT NULL)
                 AND NOT EXISTS (SELECT 1 FROM automations WHERE tenant_id = :tenant AND type = :type AND path = :path)""",
           agent=agent, type=type, name=name, path=path, label=label, now=now())
    return db.one(Automation, """
        INSERT INTO automations (tenant_id, name, agent_name, type, path, label, created_at, updated_at)
        VALUES (:tenant, :name, :agent, :type, :path, :label, :now, :now)
        ON CONFLICT (tenant_id, type, path) DO UPDATE SET name = :name, agent_name = :agent, label = :label, updated_at = :now
        RETURNING *""", agent=agent, type=type, name=name, path=path, label=label, now=now())


@writes
def forget_elsewhere(agent: str, folder: str) -> None:
    """Drop what is left of an agent's own records whose path is not under `folder`: the data folder has moved."""
    db.run("""DELETE FROM automations WHERE tenant_id = :tenant AND agent_name = :agent AND label IS NOT NULL
               AND substr(path, 1, length(:folder)) <> :folder""", agent=agent, folder=folder)


@writes
def forget_agent(agent: str) -> None:
    """Drop every record of an agent that is no more."""
    db.run("DELETE FROM automations WHERE tenant_id = :tenant AND agent_name = :agent", agent=agent)


@writes
def switch(agent: str, status: AutomationStatus) -> None:
    """Make an agent's launch agents active or inactive; only what is active is loaded when the server starts."""
    db.run("""UPDATE automations SET status = :status, updated_at = :now
               WHERE tenant_id = :tenant AND agent_name = :agent AND type = 'launchagent' AND status <> 'disabled'""",
           agent=agent, status=status, now=now())


@plugin.service
def supervise(stop: threading.Event) -> None:
    """Load what is active and, where this server is its own supervisor, run it until the end."""
    from . import live
    for one in db.all(Automation, "SELECT * FROM automations WHERE tenant_id = :tenant AND type = 'launchagent' AND status = 'active'"):
        try:
            live.follow(one)
        except (Problem, OSError, ValueError) as problem:  # whatever stands in one row, the others are loaded
            live.log.warning("automation %d (%s) is not loaded: %s", one.id, one.name, problem)
    if supervisor.driver() is supervisor.embedded.driver:
        supervisor.embedded.driver.run(stop)


