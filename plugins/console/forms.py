"""Forms: what each form of a page asks for. No reading, no writing.

Owns no table. Surprise: a field's name is the API's own; `task.title` stands within `task`.
"""
from typing import Any, get_args

from plugins.agents.adapters import AdapterName
from plugins.keys import SCOPES

from .acts import Field

PRIORITIES = ("P2", "P0", "P1", "P3")


def a_task(names: list[str], products: list[str]) -> list[Field]:
    """A task to give; to the one name, where there is but one."""
    who = Field("assignee", "For", value=names[0], options=tuple(names)) if len(names) == 1 else Field("assignee", "For", options=("", *names))
    fields = [Field("title", "What", required=True), Field("description", "More about it", "long"), who, Field("priority", "Priority",
        options=PRIORITIES)]
    return fields + ([Field("product_slug", "Product", options=("", *products))] if products else [])


def task_changes(task: Any) -> list[Field]:
    """What of a task is changed by hand."""
    return [Field("title", "What", value=task.title, required=True), Field("description", "More about it", "long", task.description),
            Field("assignee", "For", "null", task.assignee or ""), Field("priority", "Priority", value=task.priority, options=("P0", "P1", "P2",
                "P3")),
            Field("due_date", "Until", "date", (task.due_date or "")[:10])]


def a_word(answer: bool = False) -> list[Field]:
    """A word on what is sent back, or the answer to a question."""
    return [Field("note", "Your answer" if answer else "What is to be done otherwise", "long", required=True)]


def an_agent() -> list[Field]:
    """An agent to make."""
    return [Field("name", "Name, in small letters", required=True), Field("display_name", "Called"), Field("role", "Role"),
            Field("adapter", "Its brain", options=("", *get_args(AdapterName)), help="A tool of this machine; or a program of your own:"),
            Field("command", "Program, with its arguments", "words"), Field("model", "Model"), Field("interval_sec",
                "Looks for work every … seconds", "number", 60)]


def agent_changes(agent: Any) -> list[Field]:
    """What of an agent is changed by hand."""
    return [Field("display_name", "Called", value=agent.display_name), Field("role", "Role", value=agent.role), Field("model", "Model", "null",
        agent.model or ""),
            Field("interval_sec", "Looks for work every … seconds", "number", agent.interval_sec)]


def a_budget(one: Any) -> list[Field]:
    """What an agent may spend; empty is no limit."""
    words = {"tokens_per_day": "Tokens a day", "tokens_per_month": "Tokens a month", "cost_micros_per_day": "Millionths of a dollar a day",
             "cost_micros_per_month": "Millionths of a dollar a month",
                 "cost_micros_per_hour": "Millionths of a dollar in an hour, at which it is stopped",
             "micros_per_million_tokens_in": "A million tokens in cost", "micros_per_million_tokens_out": "A million tokens out cost"}
    return [Field(name, label, "number", getattr(one, name)) for name, label in words.items()] + [
        Field("runs_without_progress", "Runs without progress, at which it is stopped", "number", one.runs_without_progress)]


def a_key() -> list[Field]:
    """An API key to make."""
    return [Field("name", "Name", required=True), Field("scopes", "May", "list", help="Scopes, with commas between: " + ", ".join(sorted(SCOPES)))]
