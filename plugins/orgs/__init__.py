"""Organizations: groups of people who share API keys and, later, a bill.

Owns organizations and org_members. An organization lives in the tenant of its creator, and so do its keys;
a member may come from any tenant, by accepting an invitation, and sees the organization by their rank there.
Everybody else is told that it does not exist.
Surprise: who may do what is decided here and not at the gate, for it depends on the rank in this organization.
Whoever runs the tenant sees its organizations, but changes only those they have a rank in.
"""
import re
import secrets
import unicodedata
from typing import Any

from orkosi import (
    UNSET,
    Actor,
    Conflict,
    Denied,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    across_tenants,
    current,
    db,
    emit,
    now,
    writes,
)
from plugins import fields, lists, mail, users
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.server.limits import limiter
from plugins.users import Invite, Pending, User

from .ranks import HIGHEST_FIRST, Rank, at_least

plugin = Plugin("Organizations", layer="ground", needs=("users", "mail", "server", "fields", "lists"))
plugin.setting("limit_org_invites", str, "20/h", "Invitations into one organization")

BY_RANK = HIGHEST_FIRST.replace("role", "org_members.role")


class Organization(Struct):
    """An organization, as one of its members sees it; `role` is the reader's own."""
    id: str
    tenant_id: int
    name: str
    slug: str
    avatar_url: str | None
    member_count: int
    role: Rank | None
    created_at: str
    updated_at: str


class Shut(Struct):
    """An organization that was put away."""
    id: str
    tenant_id: int


class OrganizationMember(Struct):
    """Somebody in an organization."""
    user_id: int
    username: str
    role: Rank
    joined_at: str


class OrganizationPatch(Struct, forbid_unknown_fields=True):
    """What of an organization may be changed."""
    name: str | UnsetType = UNSET
    slug: str | UnsetType = UNSET
    avatar_url: str | None | UnsetType = UNSET


SEEN = Listing(
    of=Organization, columns="organizations.*, mine.role AS role, (SELECT count(*) FROM org_members WHERE org_id = organizations.id) AS member_count",
    source="organizations LEFT JOIN org_members AS mine ON mine.org_id = organizations.id AND mine.user_id = :me",
    base="deleted_at IS NULL AND (mine.role IS NOT NULL OR (:all AND tenant_id = :tenant)) AND (:person OR tenant_id = :tenant)",
    order="organizations.created_at DESC, organizations.id", few=True)
MEMBERS = Listing(
    of=OrganizationMember, columns="org_members.user_id, users.username, org_members.role, org_members.joined_at",
    source="org_members JOIN users ON users.id = org_members.user_id",
    base="org_id = :id", order=f"{BY_RANK}, joined_at, user_id", computed={BY_RANK: "org_members.role"}, few=True)


# ── organizations ──


def page(query: Paging, everything: bool = False) -> Page[Organization]:
    """Those one is a member of, newest first; with `everything` all of the tenant. Denied for who does not run it."""
    me = current()
    if everything and not users.in_charge():
        raise Denied("all=true is for whoever runs the tenant; leave it out to see your own")
    return lists.page(SEEN, query, **_for(me) | {"all": everything})


def _for(me: Actor) -> dict[str, Any]:
    """What somebody sees; a key, only those of its tenant."""
    return {"me": me.user or 0, "all": users.in_charge(), "person": me.scopes is None}


def find(id: str) -> Organization:
    """One organization that whoever acts may see. NotFound."""
    me = current()
    found = db.one(Organization, f"SELECT {SEEN.columns} FROM {SEEN.source} WHERE {SEEN.base} AND organizations.id = :id", id=id, **_for(me))
    if found is None:
        raise NotFound(f"There is no organization {id}")
    return found


def require(id: str, rank: Rank) -> Organization:
    """One organization in which whoever acts has at least `rank`. NotFound where they may not even see it, Denied otherwise."""
    found = find(id)
    if not at_least(found.role, rank):
        raise Denied(f"This needs the rank {rank} in {found.name}; yours is {found.role or 'none'}")
    return found


@writes
def create(name: str, slug: str | None) -> Organization:
    """Make an organization in one's own tenant; its creator becomes its owner. Conflict where the slug is taken."""
    me = current()
    name = fields.printable(name, "name", 100)
    made = db.insert(dict, "organizations", id=f"org_{secrets.token_hex(8)}", name=name, slug=slugged(name) if slug is None else slug_of(slug),
                     created_at=now(), updated_at=now())
    _join(made["id"], me.user, "owner")
    found = find(made["id"])
    emit("organization.created", found)
    return found


@writes
@across_tenants
def change(id: str, patch: OrganizationPatch) -> Organization:
    """Change name, slug or picture, as its administrator. NotFound, Denied, Conflict, Invalid."""
    require(id, "admin")
    values = {"name": patch.name if patch.name is UNSET else fields.printable(str(patch.name), "name", 100),
              "slug": patch.slug if patch.slug is UNSET else slug_of(str(patch.slug)),
              "avatar_url": patch.avatar_url if patch.avatar_url in (None, UNSET) else picture(str(patch.avatar_url))}
    old = db.one(dict, "SELECT name, slug, avatar_url FROM organizations WHERE id = :id", id=id)
    new = old | {name: value for name, value in values.items() if value is not UNSET}
    db.run("UPDATE organizations SET name = :name, slug = :slug, avatar_url = :avatar_url, updated_at = :now WHERE id = :id", id=id, now=now(), **new)
    found = find(id)
    emit("organization.changed", found)
    return found


@writes
@across_tenants
def delete(id: str) -> None:
    """Put an organization away, as its owner: nobody sees it any more, its slug is free, its invitations are void."""
    require(id, "owner")
    _put_away(id)


@across_tenants
def _put_away(id: str) -> None:
    shut = db.one(Shut, "UPDATE organizations SET deleted_at = :now WHERE id = :id RETURNING id, tenant_id", id=id, now=now())
    users.revoke("org", id, None)
    emit("organization.deleted", shut)  # its keys hear it


# ── names ──


def slugged(name: str) -> str:
    """A slug from a name: folded, without accents, words joined by hyphens."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(char))
    return re.sub(r"[\W_]+", "-", bare).strip("-")[:60].strip("-") or "organization"


def slug_of(text: str) -> str:
    """`text` as a slug, or Invalid."""
    if not text or slugged(text) != text:
        raise wrong("slug", f"Use small letters, digits and single hyphens, for example {slugged(text)!r}")
    return text


def picture(url: str) -> str:
    """`url` as an address that a browser may load a picture from, or Invalid."""
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[!-~]*)?", url) or len(url) > 2000:
        raise wrong("avatar_url", "Use an http(s) URL")
    return url


# ── members ──


def members(id: str, query: Paging) -> Page[OrganizationMember]:
    """Who is in it: by rank, owners first, and by when they joined."""
    return lists.page(MEMBERS, query, id=find(id).id)


def member(id: str, user_id: int) -> OrganizationMember:
    """One member. NotFound."""
    found = _member(id, user_id)
    if found is None:
        raise NotFound(f"User {user_id} is no member here")
    return found


@across_tenants
def _member(id: str, user_id: int | None) -> OrganizationMember | None:
    return db.one(OrganizationMember, """SELECT org_members.user_id, users.username, org_members.role, org_members.joined_at
                               FROM org_members JOIN users ON users.id = org_members.user_id
                              WHERE org_id = :id AND user_id = :user""", id=id, user=user_id)


@writes
@across_tenants
def add(id: str, user_id: int, role: Rank) -> OrganizationMember:
    """Take in somebody of the organization's tenant; others are invited. NotFound, Denied, Conflict."""
    found = require(id, "admin")
    _grant(found, role)
    if not db.value("SELECT 1 FROM users WHERE id = :user AND tenant_id = :home", user=user_id, home=found.tenant_id):
        raise NotFound(f"There is no user {user_id}; people of elsewhere are invited by mail")
    if _member(id, user_id):
        raise Conflict(f"User {user_id} is a member already; change the role with PATCH")
    _join(id, user_id, role)
    emit("organization.joined", found)
    return member(id, user_id)


@writes
def promote(id: str, user_id: int, role: Rank) -> OrganizationMember:
    """Give a member another rank. NotFound, Denied; Conflict for the last owner."""
    found = require(id, "admin")
    _touch(found, member(id, user_id))
    _grant(found, role)
    if role != "owner":
        _keep_an_owner(id, user_id)
    db.run("UPDATE org_members SET role = :role WHERE org_id = :id AND user_id = :user", id=id, user=user_id, role=role)
    emit("organization.promoted", found)
    return member(id, user_id)


@writes
def remove(id: str, user_id: int) -> None:
    """Put a member out, or leave oneself. NotFound, Denied; Conflict for the last owner."""
    me = current()
    found = find(id) if user_id == me.user else require(id, "admin")
    _touch(found, member(id, user_id))
    _keep_an_owner(id, user_id)
    db.run("DELETE FROM org_members WHERE org_id = :id AND user_id = :user", id=id, user=user_id)
    emit("organization.left", found)


def _grant(found: Organization, role: str) -> None:
    if not at_least(found.role or "viewer", role):
        raise Denied(f"Nobody grants more than they have: yours is {found.role}")


def _touch(found: Organization, other: OrganizationMember) -> None:
    me = current()
    if found.role != "owner" and other.user_id != me.user and at_least(other.role, found.role or "viewer"):
        raise Denied(f"{other.username} is {other.role} there; that takes an owner")


def _keep_an_owner(id: str, user_id: int) -> None:
    """Inside the transaction: two owners who resign at once cannot both succeed."""
    owners = [owner for owner, in db.all(tuple, "SELECT user_id FROM org_members WHERE org_id = :id AND role = 'owner'", id=id)]
    if owners == [user_id]:
        raise Conflict("That is the last owner; make somebody else owner first")


def _join(id: str, user_id: int | None, role: str) -> None:
    """Make somebody a member; one who is a member already keeps the higher of the two ranks."""
    if (there := _member(id, user_id)) is None:
        db.run("INSERT INTO org_members (org_id, user_id, role, joined_at) VALUES (:id, :user, :role, :now)",
               id=id, user=user_id, role=role, now=now())
    elif not at_least(there.role, role):
        db.run("UPDATE org_members SET role = :role WHERE org_id = :id AND user_id = :user", id=id, user=user_id, role=role)


# ── invitations ──


def invite(id: str, email: str, role: Rank) -> tuple[Pending, str | None]:
    """Invite an address by mail; the invitation, and the rank of a member whose rank it raises once it is accepted.

    NotFound, Denied, Conflict, TooMany.
    """
    require(id, "admin")
    limiter.take("org_invites", id)
    users.count_invitation()
    return _invite(id, email, role)


@writes
@across_tenants
def _invite(id: str, email: str, role: Rank) -> tuple[Pending, str | None]:
    me = current()
    found = require(id, "admin")
    _grant(found, role)
    has = db.value("""SELECT org_members.role FROM org_members JOIN users ON users.id = user_id WHERE org_id = :id AND email_key = :key""",
                   id=id, key=users.folded(email))
    if at_least(has, role):
        raise Conflict(f"{email} is a member already, as {has}; an invitation never lowers a role, PATCH does")
    made, _ = users.invite("org", id, email, role, me.user, found.tenant_id)
    mail.send(made.email, *users.invitation(made, users.find(me.user or 0).username, found.name), about=me.user,
              wanted=mail.Wanted("invite", invite_id=made.id))
    emit("organization.invited", found)
    return made.pending(), has


def invites(id: str, query: Paging) -> Page[Pending]:
    """What is open, newest first. NotFound, Denied."""
    require(id, "admin")
    return users.open_invites("org", id, query)


@writes
def revoke(id: str, invite_id: int) -> None:
    """Make an open invitation void. NotFound, Denied."""
    require(id, "admin")
    users.revoke("org", id, invite_id)


def accept(code: str) -> tuple[Organization, str | None]:
    """Become a member by the invitation that names one's address, or get the higher rank it promises; the rank one had before. NotFound."""
    id, before = _accept(code)
    return find(id), before


@writes
def _accept(code: str) -> tuple[str, str | None]:
    found, user = users.addressed(code, "org")
    before = _member(str(found.target), user.id)
    users.accept(found, user)
    return str(found.target), before and before.role


@plugin.on("invite.accepted")
@across_tenants
def let_in(event: str, invite: Invite, user: User, **facts: Any) -> None:
    """Grant what an invitation promised, if whoever sent it could still promise it. NotFound."""
    if invite.kind != "org":
        return
    inviter = db.value("""SELECT role FROM org_members JOIN organizations ON organizations.id = org_id
                           WHERE org_id = :id AND user_id = :by AND deleted_at IS NULL""", id=invite.target, by=invite.invited_by)
    if not (at_least(inviter, "admin") and at_least(inviter, invite.role)):
        raise NotFound("That invitation is void: whoever sent it may not invite any more")
    _join(str(invite.target), user.id, invite.role)


# ── farewells ──


@plugin.on("user.leaving")
@across_tenants
def hold_back(event: str, user: User, **facts: Any) -> None:
    """Nobody leaves others without an owner. Conflict."""
    stuck = db.value("""
        SELECT name FROM organizations JOIN org_members AS mine ON mine.org_id = organizations.id
         WHERE mine.user_id = :id AND mine.role = 'owner' AND deleted_at IS NULL
           AND EXISTS (SELECT 1 FROM org_members WHERE org_id = organizations.id AND user_id <> :id)
           AND NOT EXISTS (SELECT 1 FROM org_members WHERE org_id = organizations.id AND user_id <> :id AND role = 'owner')""", id=user.id)
    if stuck:
        raise Conflict(f"You are the only owner of {stuck}, which has other members; make one of them owner, or delete it first")


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """A user who is gone is no member; the highest of those who stay inherits, and what is empty is put away."""
    mine = [id for id, in db.all(tuple, """SELECT org_id FROM org_members JOIN organizations ON organizations.id = org_id
                                            WHERE user_id = :id AND deleted_at IS NULL""", id=gone.id)]
    db.run("DELETE FROM org_members WHERE user_id = :id", id=gone.id)
    for id in mine:
        heir = db.one(tuple, f"""SELECT user_id, role FROM org_members WHERE org_id = :id
                                 ORDER BY {BY_RANK}, joined_at LIMIT 1""", id=id)
        if heir is None:
            _put_away(id)
        elif heir[1] != "owner":
            db.run("UPDATE org_members SET role = 'owner' WHERE org_id = :id AND user_id = :heir", id=id, heir=heir[0])
