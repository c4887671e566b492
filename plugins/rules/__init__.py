"""Rules: what every agent, or one of them, must keep to.

Owns rules. What stands here goes into every brain as it is, so people write it, and keys that a person gave
`rules:write`; an agent never does, for a rule that one agent wrote would command all the others.
Surprise: a permanent rule is never deleted. An administrator may make it an ordinary one first.
"""
from typing import Annotated, Literal

from orkosi import (
    RANKS,
    UNSET,
    Denied,
    Meta,
    NotFound,
    Page,
    Plugin,
    Struct,
    UnsetType,
    current,
    db,
    emit,
    now,
    writes,
)
from plugins import fields, lists
from plugins.fields import Many, OfAgent
from plugins.lists import Listing

plugin = Plugin("Rules", layer="domain")


Text = Annotated[str, Meta(min_length=1, max_length=4000)]
Scope = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z", description="An agent's name, or all")]
Category = Annotated[str, Meta(min_length=1, max_length=60)]


class Rule(Struct):
    """Something to keep to; `scope` is an agent's name, or `all`."""
    id: int
    rule: str
    scope: str
    category: str
    permanent: bool
    created_by: str
    created_at: str
    updated_at: str


class NewRule(Struct, forbid_unknown_fields=True):
    """A rule to add."""
    rule: Text
    scope: Scope = "all"
    category: Category = "general"
    permanent: bool = False


class RulePatch(Struct, forbid_unknown_fields=True):
    """A change to a rule: what is set, is changed."""
    rule: Text | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    category: Category | UnsetType = UNSET
    permanent: bool | UnsetType = UNSET


class RuleQuery(OfAgent):
    """What a list of rules may be narrowed by."""
    limit: Many = 1000
    scope: str | None = None
    category: str | None = None
    permanent: Literal["0", "1"] | None = None


RULES = Listing(
    of=Rule, source="rules", order="permanent DESC, id DESC",
    filters={"scope": "scope = :scope", "agent": "scope IN ('all', :agent)", "category": "category = :category",
             "permanent": "permanent = CAST(:permanent AS INTEGER)"})


def page(query: RuleQuery) -> Page[Rule]:
    """Rules, permanent ones first, the newest first within each; an agent's key sees those that bind its agent."""
    return lists.page(RULES, query, agent=current().name if current().kind == "agent" else query.whose())


def find(id: int) -> Rule:
    """One rule. NotFound."""
    rule = db.one(Rule, "SELECT * FROM rules WHERE id = :id AND tenant_id = :tenant", id=id)
    if rule is None:
        raise NotFound(f"There is no rule {id}")
    return rule


@writes
def create(new: NewRule) -> Rule:
    """Add a rule. Denied where somebody but an administrator makes it permanent."""
    _no_agent()
    if new.permanent:
        _administrator("make a rule permanent")
    fields.required(new.rule, "rule", "Say what to keep to")
    made = db.insert(Rule, "rules", new, created_by=current().ref, created_at=now(), updated_at=now())
    emit("rule.created", made)
    return made


@writes
def change(id: int, patch: RulePatch) -> Rule:
    """Change what is set. Denied where it is permanent, or becomes so, for everybody but an administrator."""
    _no_agent()
    if find(id).permanent or patch.permanent is True:
        _administrator("change a permanent rule")
    if patch.rule is not UNSET:
        fields.required(patch.rule, "rule", "Say what to keep to")
    rule = db.patch(Rule, "rules", id, patch)
    emit("rule.updated", rule)
    return rule


@writes
def delete(id: int) -> None:
    """Remove a rule. Denied for a permanent one, whoever asks."""
    _no_agent()
    rule = find(id)
    if rule.permanent:
        raise Denied(f"Rule {id} is permanent; an administrator may set \"permanent\": false first")
    db.delete("rules", id)
    emit("rule.deleted", rule)


def _no_agent() -> None:
    if current().kind == "agent":
        raise Denied("No agent writes rules: it would command all the others")


def _administrator(what: str) -> None:
    if current().rank < RANKS["admin"]:
        raise Denied(f"Only an administrator may {what}")
