"""The wire of rules: /rules."""
from typing import Annotated

from orkosi import UNSET, Actor, Deleted, Meta, Page, Struct, UnsetType, may
from plugins import rules
from plugins.rules import Rule, RulePatch, RuleQuery, plugin

Text = Annotated[str, Meta(min_length=1, max_length=4000)]
Scope = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z", description="An agent's name, or all")]
Category = Annotated[str, Meta(min_length=1, max_length=60)]


class NewRule(Struct, forbid_unknown_fields=True):
    rule: Text
    scope: Scope = "all"
    category: Category = "general"
    permanent: bool = False


class Change(RulePatch, forbid_unknown_fields=True):
    rule: Text | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    category: Category | UnsetType = UNSET


@plugin.get("/api/rules", quick=True, auth=may("viewer", "tasks:read"))
def index(query: RuleQuery) -> Page[Rule]:
    """List rules

    Permanent ones first, the newest first within each. `agent` gives that agent's rules and those for all."""
    return rules.listed(query)


@plugin.post("/api/rules", auth=may("editor", host=True), status=201, raises=(400,))
def create(body: NewRule, me: Actor) -> Rule:
    """Add a rule

    Only an administrator makes it permanent."""
    return rules.create(body.rule, me, body.scope, body.category, body.permanent)


@plugin.patch("/api/rules/{id}", auth=may("editor", host=True), raises=(404,))
def update(id: int, body: Change, me: Actor) -> Rule:
    """Change a rule

    Only an administrator changes a permanent one."""
    return rules.update(id, body, me)


@plugin.delete("/api/rules/{id}", auth=may("editor", host=True), raises=(404,))
def delete(id: int, me: Actor) -> Deleted:
    """Delete a rule

    403 for a permanent one."""
    rules.delete(id, me)
    return Deleted(id)
