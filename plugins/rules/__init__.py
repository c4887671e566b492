"""Rules: what every agent, or one of them, must keep to.

Owns rules. What stands here goes into every brain as it is, so people alone write it: a key, and an agent's
above all, never does, for a rule that one agent wrote would command all the others.
Surprise: a permanent rule is never deleted. An administrator may make it an ordinary one first.
"""
from typing import Literal

from orkosi import (
    RANKS,
    UNSET,
    Actor,
    Denied,
    Invalid,
    Listing,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    current,
    db,
    emit,
    now,
    writes,
)

plugin = Plugin("Rules", layer="domain")


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


class RulePatch(Struct, forbid_unknown_fields=True):
    """What of a rule may be changed."""
    rule: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    category: str | UnsetType = UNSET
    permanent: bool | UnsetType = UNSET


class RuleQuery(Paging):
    """What a list of rules may be narrowed by."""
    scope: str | None = None
    agent: str | None = None
    category: str | None = None
    permanent: Literal["0", "1"] | None = None


RULES = Listing(
    of=Rule, source="rules", order="permanent DESC, id DESC",
    filters={"scope": "scope = :scope", "agent": "scope IN ('all', :agent)", "category": "category = :category",
             "permanent": "permanent = CAST(:permanent AS INTEGER)"})


def listed(query: RuleQuery) -> Page[Rule]:
    """Rules, permanent ones first, the newest first within each; an agent's key sees those that bind its agent."""
    return db.page(RULES, query, **({"agent": current().name} if current().kind == "agent" else {}))


def binding(agent: str) -> list[Rule]:
    """Every rule an agent must keep to, its own and those for all, permanent ones first."""
    return db.all(Rule, """
        SELECT * FROM rules WHERE tenant_id = :tenant AND scope IN ('all', :agent)
         ORDER BY permanent DESC, id DESC LIMIT 1000""", agent=agent)


def find(id: int) -> Rule:
    """One rule. NotFound."""
    rule = db.one(Rule, "SELECT * FROM rules WHERE id = :id AND tenant_id = :tenant", id=id)
    if rule is None:
        raise NotFound(f"There is no rule {id}")
    return rule


@writes
def create(rule: str, by: Actor, scope: str = "all", category: str = "general", permanent: bool = False) -> Rule:
    """Add a rule. Denied where somebody but an administrator makes it permanent."""
    _person(by)
    if permanent:
        _administrator(by, "make a rule permanent")
    made = db.insert(Rule, "rules", rule=_said(rule), scope=scope, category=category, permanent=int(permanent), created_by=by.ref,
                     created_at=now(), updated_at=now())
    emit("rule.created", made)
    return made


@writes
def update(id: int, change: RulePatch, by: Actor) -> Rule:
    """Change what is sent. Denied where it is permanent, or becomes so, and `by` is no administrator."""
    _person(by)
    if find(id).permanent or change.permanent is True:
        _administrator(by, "change a permanent rule")
    if change.rule is not UNSET:
        _said(change.rule)
    rule = db.patch(Rule, "rules", id, change)
    emit("rule.updated", rule)
    return rule


@writes
def delete(id: int, by: Actor) -> None:
    """Remove a rule. Denied for a permanent one, whoever asks."""
    _person(by)
    rule = find(id)
    if rule.permanent:
        raise Denied(f"Rule {id} is permanent; an administrator may set \"permanent\": false first")
    db.delete("rules", id)
    emit("rule.deleted", rule)


def _said(rule: str) -> str:
    if not rule.strip():
        raise Invalid("rule: Say what to keep to", [{"field": "rule", "message": "Required"}])
    return rule


def _person(by: Actor) -> None:
    if by.scopes is not None or by.kind not in ("user", "system"):
        raise Denied("Rules are written by people; sign in")


def _administrator(by: Actor, what: str) -> None:
    if by.rank < RANKS["admin"]:
        raise Denied(f"Only an administrator may {what}")
