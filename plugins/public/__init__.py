"""Public: the API for other people's programs, in words that do not change when the house's do.

Owns no table: what is asked here is done by the verbs of tasks and agents. All translation
between the two vocabularies is in this file, as tables that are read both ways.
Surprise: a task knows its product by slug and the public by number, and so a task of a product that is not
on record has no `product_id`.
"""
from typing import Any, Literal

from orkosi import UNSET, NotFound, Plugin, Struct, db
from plugins import tasks
from plugins.agents.state import SeenAgent
from plugins.tasks import Task, Type

plugin = Plugin("Public API", layer="views")

Priority = Literal["critical", "high", "medium", "low"]
TaskStatus = Literal["todo", "in_progress", "review", "done", "blocked", "cancelled"]
AgentStatus = Literal["idle", "working", "blocked", "offline", "paused"]

# public ↔ house
PRIORITIES: dict[str, tasks.Priority] = {"critical": "P0", "high": "P1", "medium": "P2", "low": "P3"}
TASK_STATUSES: dict[str, tasks.Status] = {"todo": "todo", "in_progress": "in_progress", "review": "review", "done": "done",
                                          "blocked": "blocked", "cancelled": "archived"}
# Several of the house's words are one here; the first is what an agent says of itself by it.
AGENT_STATUSES = {"idle": ("idle",), "working": ("working", "active"), "blocked": ("blocked", "error"),
                  "offline": ("offline", "stopped"), "paused": ("paused",)}

_PRIORITY_OUT = {house: public for public, house in PRIORITIES.items()}
_TASK_STATUS_OUT = {house: public for public, house in TASK_STATUSES.items()}
_AGENT_STATUS_OUT = {house: public for public, words in AGENT_STATUSES.items() for house in words}


class PublicTask(Struct):
    """A task, as the public knows it."""
    id: int
    title: str
    description: str
    type: Type
    priority: Priority
    status: TaskStatus
    assigned_to: str | None
    product_id: int | None
    max_duration_seconds: int
    resolution: str | None
    created_at: str
    updated_at: str
    finished_at: str | None


class PublicAgent(Struct):
    """An agent, as the public knows it. `status` is what is seen of it."""
    id: int
    name: str
    display_name: str
    emoji: str | None
    role: str
    status: AgentStatus
    current_task: str | None
    workspace_path: str | None
    last_heartbeat: str | None
    created_at: str
    updated_at: str


def inward(body: Struct) -> dict[str, Any]:
    """A request's set fields about a task, in the house's words. NotFound where there is no such product."""
    given = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if "priority" in given:
        given["priority"] = PRIORITIES[given["priority"]]
    if "status" in given:
        given["status"] = TASK_STATUSES[given["status"]]
    if "assigned_to" in given:
        given["assignee"] = given.pop("assigned_to")
    if "product_id" in given:
        id = given.pop("product_id")
        given["product_slug"] = None if id is None else slug_of(id)
    return given


def outward(task: Task, products: dict[str, int] | None = None) -> PublicTask:
    """A task in the public's words; of many, `products` is asked once, with `product_ids`."""
    known = product_ids([task]) if products is None else products
    return PublicTask(task.id, task.title, task.description, task.type, _PRIORITY_OUT[task.priority],  # type: ignore[arg-type]
                      _TASK_STATUS_OUT[task.status], task.assignee, known.get(task.product_slug or ""),  # type: ignore[arg-type]
                      task.max_duration_seconds, task.resolution, task.created_at, task.updated_at, task.finished_at)


def seen(agent: SeenAgent) -> PublicAgent:
    """An agent in the public's words."""
    return PublicAgent(agent.id, agent.name, agent.display_name, agent.emoji, agent.role, _AGENT_STATUS_OUT[agent.status],  # type: ignore[arg-type]
                       agent.current_task, agent.workspace_path, agent.last_heartbeat, agent.created_at, agent.updated_at)


def slug_of(product_id: int) -> str:
    """The slug of a product of this tenant. NotFound, as for one of another tenant."""
    slug = db.value("SELECT slug FROM products WHERE id = :id AND tenant_id = :tenant", id=product_id)
    if slug is None:
        raise NotFound(f"product_id: There is no product {product_id}", [{"field": "product_id", "message": "no such product"}])
    return slug


def product_ids(found: list[Task]) -> dict[str, int]:
    """The numbers of the products of these tasks, by slug."""
    ids = {slug: db.value("SELECT id FROM products WHERE tenant_id = :tenant AND slug = :slug", slug=slug)
           for slug in {task.product_slug for task in found if task.product_slug}}
    return {slug: id for slug, id in ids.items() if id is not None}
