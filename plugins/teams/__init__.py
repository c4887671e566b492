"""Teams: who works with whom, inside one tenant.

Owns teams and team_members. Everybody of the tenant sees its teams; a team's own people change it, by their
rank there, and so does whoever runs the tenant, as if they owned it.
Surprise: a team gives no rights beyond itself. What somebody may do with tasks or keys depends on their role alone.
"""
from typing import Annotated, Any

from orkosi import (
    UNSET,
    Conflict,
    Denied,
    Meta,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    across_tenants,
    acting,
    current,
    db,
    emit,
    now,
    writes,
)
from plugins import fields, lists, mail, users
from plugins.lists import Listing
from plugins.orgs.ranks import HIGHEST_FIRST, at_least
from plugins.orgs.ranks import TeamRank as Rank
from plugins.server.limits import limiter
from plugins.tenants import shares
from plugins.users import Invite, Pending, User

plugin = Plugin("Teams", layer="domain")
plugin.setting("limit_team_invites", str, "20/h", "Invitations into one team")

Description = Annotated[str, Meta(max_length=4000)]


class Team(Struct):
    """A team; `role` is the reader's own in it."""
    id: int
    tenant_id: int
    name: str
    description: str
    member_count: int
    role: Rank | None
    created_at: str
    updated_at: str


class TeamMember(Struct):
    """Somebody in a team."""
    user_id: int
    username: str
    role: Rank
    joined_at: str


class TeamPatch(Struct, forbid_unknown_fields=True):
    """What of a team may be changed."""
    name: str | UnsetType = UNSET
    description: Description | UnsetType = UNSET


class TeamQuery(Paging):
    """What a list of teams may be narrowed by."""
    name: Annotated[str, Meta(max_length=100)] | None = None


TEAMS = Listing(
    of=Team, columns="teams.*, mine.role AS role, (SELECT count(*) FROM team_members WHERE team_id = teams.id) AS member_count",
    source="teams LEFT JOIN team_members AS mine ON mine.team_id = teams.id AND mine.user_id = :me", base="teams.tenant_id = :tenant",
    filters={"name": "name_key LIKE :name ESCAPE '\\'"}, order="teams.id DESC")
BY_RANK = HIGHEST_FIRST.replace("role", "team_members.role")
MEMBERS = Listing(
    of=TeamMember, columns="team_members.*, users.username", source="team_members JOIN users ON users.id = team_members.user_id",
    base="team_id = :id", order=f"{BY_RANK}, joined_at, user_id", computed={BY_RANK: "team_members.role"}, few=True)


# ── teams ──


def page(query: TeamQuery) -> Page[Team]:
    """The tenant's teams, newest first; with `name` those whose name has it, in whatever case."""
    name = None if not query.name else "%" + "".join("\\" + char if char in "%_\\" else char for char in users.folded(query.name)) + "%"
    return lists.page(TEAMS, query, name=name, me=current().user or 0)


def find(id: int) -> Team:
    """One team of the tenant. NotFound."""
    found = db.one(Team, f"SELECT {TEAMS.columns} FROM {TEAMS.source} WHERE {TEAMS.base} AND teams.id = :id", id=id, me=current().user or 0)
    if found is None:
        raise NotFound(f"There is no team {id}")
    return found


def require(id: int, rank: Rank) -> tuple[Team, str]:
    """One team in which whoever acts has at least `rank`, and the rank they act with. NotFound, Denied."""
    found = find(id)
    mine = "owner" if users.in_charge() else found.role
    if not at_least(mine, rank):
        raise Denied(f"This needs the rank {rank} in {found.name}; yours is {mine or 'none'}")
    return found, str(mine)


@writes
def create(name: str, description: str) -> Team:
    """Make a team; its creator becomes its owner."""
    me = current()
    name = fields.printable(name, "name", 100)
    shares.require(rows=1, bytes=len(description.encode()))
    made = db.insert(dict, "teams", name=name, name_key=users.folded(name), description=description, created_at=now(), updated_at=now())
    _join(made["id"], me.user, "owner")
    found = find(made["id"])
    emit("team.created", found)
    return found


@writes
def change(id: int, patch: TeamPatch) -> Team:
    """Change a team's name or description, as its administrator. NotFound, Denied, Invalid."""
    before, _ = require(id, "admin")
    if patch.description is not UNSET:
        shares.require(bytes=len(patch.description.encode()) - len(before.description.encode()))
    if isinstance(patch.name, str):
        patch.name = fields.printable(patch.name, "name", 100)
        db.patch(dict, "teams", id, patch, name_key=users.folded(patch.name))
    else:
        db.patch(dict, "teams", id, patch)
    found = find(id)
    emit("team.changed", found)
    return found


@writes
def delete(id: int) -> None:
    """Delete a team, as its administrator; its open invitations are void. NotFound, Denied."""
    found, _ = require(id, "admin")
    db.delete("teams", id)
    users.revoke("team", str(id), None)
    emit("team.deleted", found)


# ── members ──


def members(id: int, query: Paging) -> Page[TeamMember]:
    """Who is in it: by rank, owners first, and by when they joined. NotFound."""
    return lists.page(MEMBERS, query, id=find(id).id)


@across_tenants
def member(id: int, user_id: int) -> TeamMember:
    """One member of a team that the caller may see. NotFound."""
    found = db.one(TeamMember, """SELECT team_members.*, users.username FROM team_members JOIN users ON users.id = team_members.user_id
                               WHERE team_id = :id AND user_id = :user""", id=id, user=user_id)
    if found is None:
        raise NotFound(f"User {user_id} is no member here")
    return found


@writes
def add(id: int, user_id: int, role: Rank) -> TeamMember:
    """Take in somebody of the tenant. NotFound, Denied, Conflict."""
    found, mine = require(id, "admin")
    _grant(mine, role)
    if not db.value("SELECT 1 FROM users WHERE id = :user AND tenant_id = :tenant", user=user_id):
        raise NotFound(f"There is no user {user_id}")
    if db.value("SELECT 1 FROM team_members WHERE team_id = :id AND user_id = :user", id=id, user=user_id):
        raise Conflict(f"User {user_id} is a member already; change the role with PATCH")
    _join(id, user_id, role)
    emit("team.joined", found)
    return member(id, user_id)


@writes
def promote(id: int, user_id: int, role: Rank) -> TeamMember:
    """Give a member another rank. NotFound, Denied; Conflict for the last owner."""
    found, mine = require(id, "admin")
    _touch(mine, member(id, user_id))
    _grant(mine, role)
    if role != "owner":
        _keep_an_owner(id, user_id)
    db.run("UPDATE team_members SET role = :role WHERE team_id = :id AND user_id = :user", id=id, user=user_id, role=role)
    emit("team.promoted", found)
    return member(id, user_id)


@writes
def remove(id: int, user_id: int) -> None:
    """Put a member out, or leave oneself. NotFound, Denied; Conflict for the last owner."""
    me = current()
    found, mine = (find(id), "member") if user_id == me.user else require(id, "admin")
    _touch(mine, member(id, user_id))
    _keep_an_owner(id, user_id)
    db.run("DELETE FROM team_members WHERE team_id = :id AND user_id = :user", id=id, user=user_id)
    emit("team.left", found)


def _grant(mine: str, role: str) -> None:
    if not at_least(mine, role):
        raise Denied(f"Nobody grants more than they have: yours is {mine}")


def _touch(mine: str, other: TeamMember) -> None:
    me = current()
    if mine != "owner" and other.user_id != me.user and at_least(other.role, mine):
        raise Denied(f"{other.username} is {other.role} there; that takes an owner")


def _keep_an_owner(id: int, user_id: int) -> None:
    """Inside the transaction: two owners who resign at once cannot both succeed."""
    if [owner for owner, in db.all(tuple, "SELECT user_id FROM team_members WHERE team_id = :id AND role = 'owner'", id=id)] == [user_id]:
        raise Conflict("That is the last owner; make somebody else owner first")


def _join(id: int, user_id: int | None, role: str) -> None:
    """Make somebody a member; one who is a member already keeps the higher of the two ranks."""
    if (there := _rank(id, user_id)) is None:
        db.run("INSERT INTO team_members (team_id, user_id, role, joined_at) VALUES (:id, :user, :role, :now)",
               id=id, user=user_id, role=role, now=now())
    elif not at_least(there, role):
        db.run("UPDATE team_members SET role = :role WHERE team_id = :id AND user_id = :user", id=id, user=user_id, role=role)


def _rank(id: int, user_id: int | None) -> str | None:
    return db.value("SELECT role FROM team_members WHERE team_id = :id AND user_id = :user", id=id, user=user_id)


# ── invitations ──


def invites(id: int, query: Paging) -> Page[Pending]:
    """What is open, newest first. NotFound, Denied."""
    require(id, "admin")
    return users.open_invites("team", str(id), query)


def invite(id: int, email: str, role: Rank) -> tuple[Pending, str | None]:
    """Invite an address by mail; the invitation, and the rank of a member whose rank it raises once it is accepted.

    NotFound, Denied, Conflict, TooMany.
    """
    require(id, "admin")
    limiter.take("team_invites", str(id))
    users.count_invitation()
    return _invite(id, email, role)


@writes
@across_tenants
def _invite(id: int, email: str, role: Rank) -> tuple[Pending, str | None]:
    me = current()
    found, mine = require(id, "admin")
    _grant(mine, role)
    person = db.one(tuple, "SELECT id, tenant_id FROM users WHERE email_key = :key", key=users.folded(email))
    has = _rank(id, person[0]) if person else None
    # A team has people of its own tenant alone. The words are the same for both, and so tell nobody who has an account elsewhere.
    if at_least(has, role) or (person and person[1] != found.tenant_id):
        raise Conflict(f"{email} cannot be invited into this team as {role}: it is a member with that role or a higher one, which an "
                       "invitation never lowers, or cannot become one")
    made, _ = users.invite("team", str(id), email, role, me.user, found.tenant_id)
    mail.send(made.email, *users.invitation(made, users.find(me.user or 0).username, f"the team {found.name}"), about=me.user,
              wanted=mail.Wanted("invite", invite_id=made.id))
    emit("team.invited", found)
    return made.pending(), has


def accept(code: str) -> tuple[Team, str | None]:
    """Become a member by the invitation that names one's address, or get the higher rank it promises; the rank one had before.

    NotFound also in another tenant.
    """
    id, before = _accept(code)
    return find(id), before


@writes
def _accept(code: str) -> tuple[int, str | None]:
    found, user = users.addressed(code, "team")
    before = _rank(int(found.target or 0), user.id)
    users.accept(found, user)
    return int(found.target or 0), before


@plugin.on("invite.accepted")
@across_tenants
def let_in(event: str, invite: Invite, user: User, **facts: Any) -> None:
    """Grant what an invitation promised, if whoever sent it could still promise it. NotFound."""
    if invite.kind != "team":
        return
    team = db.value("SELECT id FROM teams WHERE id = :id AND tenant_id = :home", id=int(invite.target or 0), home=user.tenant_id)
    mine = db.value("SELECT role FROM team_members WHERE team_id = :id AND user_id = :by", id=team, by=invite.invited_by)
    if invite.invited_by:
        with acting(users.actor_of(users.find(invite.invited_by))):
            mine = "owner" if users.in_charge() else mine
    if team is None or not (at_least(mine, "admin") and at_least(mine, invite.role)):
        raise NotFound("That invitation is void: the team is gone, or of another tenant, or whoever sent it may not invite any more")
    _join(team, user.id, invite.role)


# ── farewells ──


@plugin.on("user.erased")
@across_tenants
def erase(event: str, gone: Any, **facts: Any) -> None:
    """A user who is gone is in no team; the highest of those who stay inherits."""
    mine = [id for id, in db.all(tuple, "SELECT team_id FROM team_members WHERE user_id = :id", id=gone.id)]
    db.run("DELETE FROM team_members WHERE user_id = :id", id=gone.id)
    for id in mine:
        heir = db.value(f"SELECT user_id FROM team_members WHERE team_id = :id ORDER BY {BY_RANK}, joined_at LIMIT 1", id=id)
        db.run("UPDATE team_members SET role = 'owner' WHERE team_id = :id AND user_id = :heir", id=id, heir=heir)
