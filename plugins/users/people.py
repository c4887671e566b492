"""People: who is in a tenant, as its administrators and their colleagues see them.

Surprise: the last administrator of a tenant is kept inside the transaction, so that two who demote
each other at once cannot both succeed.
"""
from orkosi import (
    RANKS,
    UNSET,
    Conflict,
    Denied,
    NotFound,
    Page,
    Paging,
    Struct,
    UnsetType,
    across_tenants,
    current,
    db,
    emit,
    now,
    writes,
)
from plugins import lists, mail, tenants
from plugins.fields import wrong
from plugins.lists import Listing
from plugins.users import Role, User, email_of, end_session, folded, username_of


class Person(Struct):
    """Somebody of one's tenant: all of it for everybody signed in there, id and name for the role `demo`."""
    id: int
    username: str
    email: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    avatar_url: str | None | UnsetType = UNSET
    created_at: str | UnsetType = UNSET
    updated_at: str | UnsetType = UNSET
    tenant_id: int | UnsetType = UNSET


PEOPLE = Listing(of=Person, source="users")


class UserPatch(Struct, forbid_unknown_fields=True):
    """What of a user an administrator may change."""
    username: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET


def page(query: Paging) -> Page[Person]:
    """The people of the tenant, newest first."""
    return lists.page(PEOPLE, query).map(_as_seen)


def find(id: int) -> Person:
    """One of the tenant's people. NotFound."""
    return _as_seen(_of_tenant(id))


def _of_tenant(id: int) -> Person:
    found = db.one(Person, "SELECT * FROM users WHERE id = :id AND tenant_id = :tenant", id=id)
    if found is None:
        raise NotFound(f"There is no user {id}")
    return found


def _as_seen(one: Person) -> Person:
    me = current()
    return one if me.rank >= RANKS["viewer"] or one.id == me.user else Person(one.id, one.username)


@writes
def change(id: int, patch: UserPatch) -> User:
    """Change a user's name, address or role. A new role ends the sessions. NotFound, Denied, Conflict, Invalid."""
    old = _of_tenant(id)
    if patch.role is not UNSET and patch.role != old.role and id == current().user:
        raise Denied("Nobody changes their own role; ask another administrator")
    changes: dict[str, object] = {}
    if isinstance(patch.username, str):
        name = username_of(patch.username)
        free("username", folded(name), id)
        changes |= {"username": name, "username_key": folded(name)}
    if isinstance(patch.email, str):
        email = email_of(patch.email)
        free("email", folded(email), id)
        changes |= {"email": email, "email_key": folded(email), "email_proven_at": None}
        db.run("DELETE FROM tickets WHERE user_id = :id", id=id)  # links that went to the old address
        mail.take_back(id, "reset", "email")
    if patch.role == "agent" != old.role:
        raise wrong("role", "No person is an agent; make an agent of its own instead")
    if isinstance(patch.role, str) and patch.role != old.role:
        if old.role == "admin":
            keep_an_administrator(id)
        changes |= {"role": patch.role}
        end_session(id, None)
    user: User = db.patch(User, "users", id, **changes)
    emit("user.changed", user, was=old.username)
    return user


@across_tenants
def free(what: str, key: str, id: int) -> None:
    """Conflict where a name or an address is somebody else's."""
    column = {"username": "SELECT id FROM users WHERE username_key = :key", "email": "SELECT id FROM users WHERE email_key = :key"}[what]
    if db.value(column, key=key) not in (None, id):
        raise Conflict(f"That {what} is taken; choose another")


@across_tenants
def keep_an_administrator(id: int) -> None:
    """Conflict where `id` is the last administrator of a tenant; only inside a write is that certain."""
    others = db.value("""SELECT 1 FROM users AS one JOIN users AS other ON other.tenant_id = one.tenant_id
                          WHERE one.id = :id AND other.id <> :id AND other.role = 'admin'""", id=id)
    if others is None:
        raise Conflict("That is the last administrator; make somebody else one first")


@writes
@across_tenants
def hand_on(tenant: int) -> None:
    """Put the highest of a tenant's people in its founder's place, who is gone: somebody must be able to change its people's work, and pay."""
    stay = db.all(User, "SELECT * FROM users WHERE tenant_id = :there AND role NOT IN ('demo', 'agent') ORDER BY id", there=tenant)
    if stay:
        heir = max(stay, key=lambda one: RANKS[one.role])  # of equals the first, who has been there longest
        tenants.founded_by(tenant, heir.id)
        emit("tenant.inherited", heir)


@writes
@across_tenants
def set_role(email: str, role: Role) -> User:
    """Give the user with that address a role, by command. NotFound; Conflict for the last administrator."""
    user = by_email(email)
    if user.role == "admin" and role != "admin":
        keep_an_administrator(user.id)
    end_session(user.id, None)
    user = db.one(User, "UPDATE users SET role = :role, updated_at = :now WHERE id = :id RETURNING *", role=role, id=user.id, now=now())
    emit("user.changed", user)
    return user


@across_tenants
def by_email(email: str) -> User:
    """The user with that address, whatever the tenant. NotFound."""
    user = db.one(User, "SELECT * FROM users WHERE email_key = :key", key=folded(email))
    if user is None:
        raise NotFound(f"Nobody has an account with {email}")
    return user


@across_tenants
def everybody() -> list[User]:
    """Every user of every tenant, by id, for the command line."""
    return db.all(User, "SELECT * FROM users ORDER BY id")
