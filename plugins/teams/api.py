"""The wire of teams: /teams. Keys neither see nor change who works with whom."""
from typing import Annotated

import msgspec

from orkosi import Deleted, Meta, Page, Paging, Reply, Struct, may
from plugins import teams
from plugins.fields import Many
from plugins.teams import Description, Rank, Team, TeamMember, TeamPatch, TeamQuery, plugin
from plugins.users import Pending

Text = Annotated[str, Meta(min_length=1, max_length=254)]


class NewTeam(Struct, forbid_unknown_fields=True):
    name: Text
    description: Description = ""


class NewTeamMember(Struct, forbid_unknown_fields=True):
    user_id: Annotated[int, Meta(ge=1)]
    role: Rank = "member"


class TeamMemberPatch(Struct, forbid_unknown_fields=True):
    role: Rank


class NewTeamInvite(Struct, forbid_unknown_fields=True):
    email: Text
    role: Rank = "member"


class TeamWithMembers(Struct):
    id: int
    tenant_id: int
    name: str
    description: str
    member_count: int
    role: Rank | None
    created_at: str
    updated_at: str
    members: list[TeamMember]


class MemberQuery(Paging):
    limit: Many = 1000


@plugin.get("/api/teams", quick=True, auth=may("viewer", "teams:read"))
def index(query: TeamQuery) -> Page[Team]:
    """List the tenant's teams with their member counts

    Newest first. `name` finds a part of a name, in whatever case."""
    return teams.page(query)


@plugin.post("/api/teams", auth=may("member"), status=201, raises=(400,))
def create(body: NewTeam) -> Team:
    """Make a team; its creator becomes its owner"""
    return teams.create(body.name, body.description)


@plugin.get("/api/teams/{id}", quick=True, auth=may("viewer", "teams:read"), raises=(404,))
def show(id: int) -> TeamWithMembers:
    """Show a team with its members

    By rank, owners first; the first 200. /teams/{id}/members has all."""
    found = teams.find(id)
    return TeamWithMembers(**msgspec.structs.asdict(found), members=teams.members(id, MemberQuery(limit=200)).items)


@plugin.patch("/api/teams/{id}", auth=may("viewer", within="admin"), raises=(404,))
def update(id: int, body: TeamPatch) -> Team:
    """Change a team's name or description"""
    return teams.change(id, body)


@plugin.delete("/api/teams/{id}", auth=may("viewer", within="admin"), raises=(404,))
def delete(id: int) -> Deleted:
    """Delete a team"""
    teams.delete(id)
    return Deleted(id)


@plugin.get("/api/teams/{id}/members", quick=True, auth=may("viewer", "teams:read"), raises=(404,))
def members(id: int, query: MemberQuery) -> Page[TeamMember]:
    """List a team's members

    By rank, owners first, and by when they joined."""
    return teams.members(id, query)


@plugin.post("/api/teams/{id}/members", auth=may("viewer", within="admin"), status=201, raises=(404, 409))
def add(id: int, body: NewTeamMember) -> TeamMember:
    """Add somebody of the tenant to a team

    Nobody grants a higher role than their own."""
    return teams.add(id, body.user_id, body.role)


@plugin.patch("/api/teams/{id}/members/{userId}", auth=may("viewer", within="admin"), raises=(404, 409))
def promote(id: int, user_id: int, body: TeamMemberPatch) -> TeamMember:
    """Change a member's role

    The last owner stays owner; only an owner changes somebody of one's own rank or above."""
    return teams.promote(id, user_id, body.role)


@plugin.delete("/api/teams/{id}/members/{userId}", auth=may("viewer", within="admin"), raises=(404, 409))
def remove(id: int, user_id: int) -> Deleted:
    """Remove a member, or leave

    Everybody may leave, but for the last owner."""
    teams.remove(id, user_id)
    return Deleted(user_id)


@plugin.get("/api/teams/{id}/invites", auth=may("viewer", within="admin"), raises=(404,))
def invites(id: int, query: MemberQuery) -> Page[Pending]:
    """List a team's open invitations

    Newest first, without their codes."""
    return teams.invites(id, query)


@plugin.post("/api/teams/{id}/invites", auth=may("viewer", within="admin"), status=201, raises=(404, 409, 429))
def invite(id: int, body: NewTeamInvite) -> Reply[Pending]:
    """Invite somebody by mail

    The mail has a link, good once and for seven days. For a member with a lower role, `meta.raises` says what it will raise.
    It lets a new user register into the tenant."""
    made, has = teams.invite(id, body.email, body.role)
    return Reply(made, meta={"raises": {"from": has, "to": made.role}} if has else None)


@plugin.post("/api/teams/invites/{token}/accept", auth=may("viewer"), raises=(404, 409))
def accept(token: str) -> Reply[Team]:
    """Become a member by an invitation that names one's address

    It raises the role of somebody who is a member already, and never lowers it: then `meta.was` is the role before."""
    found, was = teams.accept(token)
    return Reply(found, meta={"was": was} if was else None)
