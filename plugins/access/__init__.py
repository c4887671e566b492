"""Access: who may call what, as one table.

Owns no table. Every cell is what the gate itself says to a made-up principal, so the table cannot fall
behind the policies; the tests hold the running application to it, cell by cell.
Surprise: a rank in an organization or a team, and which agent a key is bound to, are known to the verbs
alone. The table takes the rank from the policy's `within`, and marks such cells where the principal has none.
"""
from typing import Literal

import click

from orkosi import HOST_TENANT, NOBODY, RANKS, Actor, Endpoint, Plugin, Problem, admit, endpoints
from plugins import keys
from plugins.orgs.ranks import RANK, at_least

plugin = Plugin("Access", layer="views")

Cell = Literal["yes", "no", "rank", "own"]
SIGN: dict[Cell, str] = {"yes": "●", "no": "·", "rank": "◐", "own": "○"}
ROLES = ("demo", "viewer", "member", "builder", "editor", "admin")
ELSEWHERE = HOST_TENANT + 1

# What no policy can say: an administrator's own account is erased by another administrator.
# Nor that no agent judges work, or sees the company's.
# Credentials are for administrators, and for keys that name them; an agent's key stands below both, and may by a grant.
NEVER: Cell = "no"
EXCEPT: dict[tuple[str, str, str], Cell] = {("DELETE", "/api/users/me", "admin"): NEVER} | {
    ("GET", path, who): NEVER for path in ("/api/credentials", "/api/credentials/{key}")
    for who in (*(role for role in ROLES if role != "admin"), *(f"rank {rank}" for rank in RANK), "key with all scopes")} | {
    ("POST", f"/api/tasks/{{id}}/{word}", "key of an agent"): NEVER for word in ("approve", "reject")} | {
    ("GET", f"/api/{path}", "key of an agent"): NEVER for path in (
        "dashboard/needs", "dashboard/stats", "dashboard/agent-queue-health", "discovery-engines", "discovery-engines/efficiency",
        "discovery-engines/{slug}")}


def _person(role: str, tenant: int = HOST_TENANT, founder: bool = False) -> Actor:
    return Actor(kind="user", id="1", user=1, tenant=tenant, role=role, rank=max(RANKS[role], RANKS["editor"] if founder else 0), owner=founder)


def _key(scopes: tuple[str, ...], tenant: int = HOST_TENANT, rank: str = "admin") -> Actor:
    return Actor(kind="key", id="key_1", user=1, tenant=tenant, role=rank, rank=RANKS[rank], scopes=frozenset(scopes))


AGENT = Actor(kind="agent", id="felix", name="felix", tenant=HOST_TENANT, role="agent", rank=RANKS["member"], scopes=frozenset(keys.AGENT_SCOPES))

# In the order of the columns. A person with a rank has the role member beside it; a key's maker is an administrator.
PRINCIPALS: dict[str, Actor] = {
    "anonymous": NOBODY, **{role: _person(role) for role in ROLES}, "founder elsewhere": _person("member", ELSEWHERE, founder=True),
    **{f"rank {rank}": _person("member") for rank in reversed(RANK)},
    "key without scopes": _key(()), "key with all scopes": _key(keys.SCOPES), "key expired": NOBODY, "key revoked": NOBODY,
    "key of an agent": AGENT, "key elsewhere": _key(keys.SCOPES, ELSEWHERE, "editor")}


def cell(endpoint: Endpoint, principal: str) -> Cell:
    """Whether a principal may call an operation: yes, no, by the rank it has there, or what is its own."""
    if known := EXCEPT.get((endpoint.method, endpoint.path, principal)):
        return known
    policy, actor = endpoint.auth, PRINCIPALS[principal]
    try:
        admit(policy, actor)
    except Problem:
        return "no"
    if policy.within and not policy.public:
        rank = principal.removeprefix("rank ")
        return "rank" if rank == principal else "yes" if at_least(rank, policy.within) else "no"
    return "own" if actor is AGENT and policy.scope else "yes"


def table() -> list[tuple[Endpoint, dict[str, Cell]]]:
    """Every operation, by path, and what every principal may."""
    return [(one, {principal: cell(one, principal) for principal in PRINCIPALS})
            for one in sorted(endpoints(), key=lambda one: (one.path, one.method))]


@plugin.command("access")
def access() -> None:
    """Print who may call what: every operation by every kind of caller."""
    click.echo("● yes   · no   ◐ by one's rank there   ○ what is its own\n")
    for number, name in enumerate(PRINCIPALS):
        click.echo(" " * 67 + "  ".join("│" for _ in range(number)) + ("  " if number else "") + "┌ " + name)
    for endpoint, cells in table():
        click.echo(f"{endpoint.method:6} {endpoint.path:58}  " + "  ".join(SIGN[one] for one in cells.values()))


@plugin.command("routes")
def show_routes() -> None:
    """List every operation and who may call it."""
    for endpoint in sorted(endpoints(), key=lambda one: (one.path, one.method)):
        click.echo(f"{endpoint.method:6} {endpoint.path:58} {endpoint.auth}")
