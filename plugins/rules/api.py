"""The wire of rules: /rules."""
from orkosi import Deleted, Page, may
from plugins import rules
from plugins.rules import NewRule, Rule, RulePatch, RuleQuery, plugin


@plugin.get("/api/rules", quick=True, auth=may("viewer", "rules:read or tasks:read"), tool="rule_list")
def index(query: RuleQuery) -> Page[Rule]:
    """List rules

    Permanent ones first, the newest first within each. `agent` gives that agent's rules and those for all."""
    return rules.page(query)


@plugin.post("/api/rules", auth=may("editor", "rules:write", host=True), status=201, raises=(400,))
def create(body: NewRule) -> Rule:
    """Add a rule

    Only an administrator makes it permanent."""
    return rules.create(body)


@plugin.patch("/api/rules/{id}", auth=may("editor", "rules:write", host=True), raises=(404,))
def update(id: int, body: RulePatch) -> Rule:
    """Change a rule

    Only an administrator changes a permanent one."""
    return rules.change(id, body)


@plugin.delete("/api/rules/{id}", auth=may("editor", "rules:write", host=True), raises=(404,))
def delete(id: int) -> Deleted:
    """Delete a rule

    403 for a permanent one."""
    rules.delete(id)
    return Deleted(id)
