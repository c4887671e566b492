"""The wire of organizations: /organizations. No API key may come in here: keys are what organizations hand out."""
from typing import Annotated, Literal

from orkosi import Deleted, Meta, Page, Paging, Reply, Struct, may
from plugins import orgs
from plugins.fields import Many, wrong
from plugins.orgs import Organization, OrganizationMember, OrganizationPatch, Rank, plugin
from plugins.users import Pending

Text = Annotated[str, Meta(min_length=1, max_length=254)]


class NewOrganization(Struct, forbid_unknown_fields=True):
    name: Text
    slug: Text | None = None


class NewMember(Struct, forbid_unknown_fields=True):
    user_id: int | str
    role: Rank = "member"


class MemberPatch(Struct, forbid_unknown_fields=True):
    role: Rank


class NewInvite(Struct, forbid_unknown_fields=True):
    email: Text
    role: Literal["admin", "member", "viewer"] = "member"


class OrganizationQuery(Paging):
    limit: Many = 1000


class MineQuery(Paging):
    all: Annotated[bool, Meta(description="true: all of the tenant, for whoever runs it")] = False


def number(text: int | str) -> int:
    """A user's id, also where it stands in a string."""
    try:
        found = int(text)
    except ValueError:
        found = 0
    if not 0 < found < 2**63 or not str(text).isascii():
        raise wrong("user_id", f"{str(text)[:40]!r} is not the id of a user")
    return found


@plugin.get("/api/organizations", quick=True, auth=may("viewer", "orgs:read"))
def index(query: MineQuery) -> Page[Organization]:
    """List the organizations one is a member of

    Newest first. `all=true` lists all of the tenant, for whoever runs it."""
    return orgs.page(query, query.all)


@plugin.post("/api/organizations", auth=may("member"), status=201, raises=(400, 409))
def create(body: NewOrganization) -> Organization:
    """Make an organization in one's own tenant

    Its creator becomes its owner. Without a `slug` it is made from the name."""
    return orgs.create(body.name, body.slug)


@plugin.get("/api/organizations/{id}", quick=True, auth=may("viewer", "orgs:read", within="viewer"), raises=(404,))
def show(id: str) -> Organization:
    """Show an organization with its member count and one's own role"""
    return orgs.find(id)


@plugin.patch("/api/organizations/{id}", auth=may("viewer", within="admin"), raises=(404, 409))
def update(id: str, body: OrganizationPatch) -> Organization:
    """Change an organization's name, slug or picture"""
    return orgs.change(id, body)


@plugin.delete("/api/organizations/{id}", auth=may("viewer", within="owner"), raises=(404,))
def delete(id: str) -> Deleted:
    """Delete an organization

    Its slug is free again, and its open invitations are void."""
    orgs.delete(id)
    return Deleted(id)


@plugin.get("/api/organizations/{id}/members", quick=True, auth=may("viewer", "orgs:read", within="viewer"), raises=(404,))
def members(id: str, query: OrganizationQuery) -> Page[OrganizationMember]:
    """List the members of an organization

    By rank, owners first, and by when they joined."""
    return orgs.members(id, query)


@plugin.post("/api/organizations/{id}/members", auth=may("viewer", within="admin"), status=201, raises=(404, 409))
def add(id: str, body: NewMember) -> OrganizationMember:
    """Add somebody of the same tenant to an organization

    Nobody grants a higher role than their own."""
    return orgs.add(id, number(body.user_id), body.role)


@plugin.patch("/api/organizations/{id}/members/{userId}", auth=may("viewer", within="admin"), raises=(404, 409))
def promote(id: str, user_id: int, body: MemberPatch) -> OrganizationMember:
    """Change a member's role

    The last owner stays owner; only an owner changes somebody of one's own rank or above."""
    return orgs.promote(id, user_id, body.role)


@plugin.delete("/api/organizations/{id}/members/{userId}", auth=may("viewer", within="admin"), raises=(404, 409))
def remove(id: str, user_id: int) -> Deleted:
    """Remove a member, or leave

    Everybody may leave, but for the last owner."""
    orgs.remove(id, user_id)
    return Deleted(user_id)


@plugin.get("/api/organizations/{id}/invites", auth=may("viewer", within="admin"), raises=(404,))
def invites(id: str, query: OrganizationQuery) -> Page[Pending]:
    """List an organization's open invitations

    Newest first, without their codes."""
    return orgs.invites(id, query)


@plugin.post("/api/organizations/{id}/invites", auth=may("viewer", within="admin"), status=201, raises=(404, 409, 429))
def invite(id: str, body: NewInvite) -> Reply[Pending]:
    """Invite somebody by mail

    The mail has a link, good once and for seven days. For a member with a lower role, `meta.raises` says what it will raise."""
    made, has = orgs.invite(id, body.email, body.role)
    return Reply(made, meta={"raises": {"from": has, "to": made.role}} if has else None)


@plugin.delete("/api/organizations/{id}/invites/{inviteId}", auth=may("viewer", within="admin"), raises=(404,))
def revoke(id: str, invite_id: int) -> Deleted:
    """Make an open invitation void"""
    orgs.revoke(id, invite_id)
    return Deleted(invite_id)


@plugin.post("/api/organizations/invites/{token}/accept", auth=may("viewer"), raises=(404, 409))
def accept(token: str) -> Reply[Organization]:
    """Become a member by an invitation that names one's address

    It raises the role of somebody who is a member already, and never lowers it: then `meta.was` is the role before."""
    found, was = orgs.accept(token)
    return Reply(found, meta={"was": was} if was else None)
