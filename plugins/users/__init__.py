"""Users: people, sessions, invitations and the single-use links.

Owns users and tickets; sessions.py and invites.py own theirs. Every token is stored as its hash.
Surprise: names and addresses are compared folded, so that two spellings of one are one.
"""
import re
import secrets
import unicodedata
from collections.abc import Callable
from typing import Literal

from orkosi import (
    HOST_TENANT,
    RANKS,
    Actor,
    Conflict,
    Invalid,
    NotFound,
    Plugin,
    Struct,
    across_tenants,
    current,
    db,
    emit,
    now,
    settings,
    writes,
)
from plugins import fields, mail, tenants
from plugins.fields import wrong

from . import passwords, tokens

plugin = Plugin("Users", layer="ground", needs=("server", "storage", "fields", "folders", "mail", "tenants", "lists"))
plugin.setting("registration", str, "invite", "Who may register: anybody (open), who is invited (invite), or nobody (closed)")
plugin.setting("limit_login", str, "10/3m", "Wrong passwords from one address")
plugin.setting("limit_login_account", str, "10/15m", "Wrong passwords for one account from one address")
plugin.setting("limit_register", str, "5/h", "Registrations from one address")
plugin.setting("limit_forgot", str, "3/h", "Forgotten passwords of one address")
plugin.setting("limit_forgot_from", str, "10/h", "Forgotten passwords from one network address")
plugin.setting("limit_link", str, "30/3m", "Mailed links that are followed from one address")
plugin.setting("limit_confirm", str, "10/15m", "Passwords that one person is asked for again")
plugin.setting("limit_invites", str, "50/h", "Invitations by one person, into whatever")
plugin.setting("limit_invites_tenant", str, "200/h", "Invitations by the people of one tenant")
plugin.setting("limit_refresh", str, "30/m", "Refreshed sessions of one account from one address")

Role = Literal["admin", "editor", "member", "builder", "viewer", "agent", "demo"]
SET_UP = 24 * 3600  # seconds


class User(Struct):
    """A person, as others may see them."""
    id: int
    username: str
    email: str
    role: Role
    avatar_url: str | None
    created_at: str
    updated_at: str
    tenant_id: int


# ── names and addresses ──


def folded(text: str) -> str:
    """What two spellings of one name have in common."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def email_of(text: str) -> str:
    """`text` as an address, or Invalid. ASCII alone: a look-alike letter would make another account of one name."""
    text = text.strip()
    local, domain = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9-]+"
    if len(text) > 254 or not re.fullmatch(f"{local}@{domain}", text):
        raise wrong("email", "That is not an e-mail address (ASCII; write an international domain as xn--…)")
    return text


def username_of(text: str) -> str:
    """`text` as a user's name, or Invalid."""
    return fields.printable(text, "username", 60)


# ── people ──


@writes
@across_tenants
def add(username: str, email: str, password_hash: str, role: str, tenant: int | None = None, *, proven: bool = False,
        agreed: bool = False) -> User:
    """Add a person to `tenant`, or found one for them. Conflict where the name or address is taken.

    `proven`: it is known that the address is that person's, by a mail they answered or by the operator's word. `agreed`: they have just
    accepted the terms.
    """
    username, email = username_of(username), email_of(email)
    if db.value("SELECT 1 FROM users WHERE email_key = :key", key=folded(email)):
        raise Conflict("That e-mail address has an account; log in, or reset its password")
    if db.value("SELECT 1 FROM users WHERE username_key = :key", key=folded(username)):
        raise Conflict(f"The username {username!r} is taken; choose another")
    founding = tenant is None
    if founding:
        tenant = tenants.found(username)
    user = db.one(User, """
        INSERT INTO users (tenant_id, username, username_key, email, email_key, email_proven_at, terms_accepted_at, password, role,
                           created_at, updated_at)
        VALUES (:home, :username, :username_key, :email, :email_key, :proven, :agreed, :password, :role, :now, :now) RETURNING *""",
        home=tenant, username=username, username_key=folded(username), email=email, email_key=folded(email),
        proven=now() if proven else None, agreed=now() if agreed else None, password=password_hash, role=role, now=now())
    if founding:
        tenants.founded_by(user.tenant_id, user.id)
    emit("user.added", user)
    return user


@across_tenants
def find(id: int) -> User:
    """One person, whatever the tenant; callers decide who may see them. NotFound."""
    user = db.one(User, "SELECT * FROM users WHERE id = :id", id=id)
    if user is None:
        raise NotFound(f"There is no user {id}")
    return user


def named(text: str) -> User | None:
    """The person of this tenant with that name, or else with that number."""
    found = db.one(User, "SELECT * FROM users WHERE username_key = :key AND tenant_id = :tenant", key=folded(text))
    if found is None and re.fullmatch("[0-9]{1,18}", text):
        found = db.one(User, "SELECT * FROM users WHERE id = :id AND tenant_id = :tenant", id=int(text))
    return found


def register(username: str, email: str, password: str, code: str | None) -> User:
    """Join the inviter's tenant by `code`, or found a tenant where registration is open; where it is closed, neither.

    Whoever asks has accepted the terms, which is noted.
    """
    if closed():
        raise Invalid("Registration is closed here; whoever runs this server adds people")
    if code is None and settings.registration != "open":
        raise Invalid("invite_code: Registration here is by invitation; ask for one", [{"field": "invite_code", "message": "Required"}])
    passwords.acceptable(password)
    username_of(username), email_of(email)
    hashed = passwords.hashed(password)  # before the transaction: it takes a fifth of a second
    if code is None:
        return add(username, email, hashed, "member", agreed=True)
    return _join(username, email, hashed, code)


def closed() -> bool:
    """Whether nobody may register, whoever invited them; who has an account may still accept."""
    return bool(settings.registration == "closed")


@writes
@across_tenants
def _join(username: str, email: str, hashed: str, code: str) -> User:
    found = invited(code)
    if found is None or folded(found.email) != folded(email):
        raise _unusable()
    try:
        user = add(username, email, hashed, *invites.place_for(found), proven=True, agreed=True)
        accept(found, user)
    except NotFound:  # what it leads to is gone, or whoever sent it may not invite any more
        raise _unusable() from None
    return user


def _unusable() -> Invalid:
    return wrong("invite_code", "That invitation is unknown, used, expired, or for another address")


def in_charge() -> bool:
    """Whether whoever acts runs the tenant: its founder, or an administrator of it, in person."""
    me = current()
    return me.user is not None and me.scopes is None and (me.owner or me.rank >= RANKS["admin"])


@across_tenants
def actor_of(user: User, **more: object) -> Actor:
    """`user` as an actor in the home tenant; a tenant's founder has an editor's rank in it."""
    founder = tenants.is_founder(user.tenant_id, user.id)
    rank = max(RANKS.get(user.role, 0), RANKS["editor"] if founder else 0)
    return Actor(kind="user", id=str(user.id), tenant=user.tenant_id, rank=rank, role=user.role, user=user.id,
                 owner=founder, **more)  # type: ignore[arg-type]


# ── single-use links ──


@mail.mints
def minted(wanted: mail.Wanted) -> str | None:
    """The token of a link whose letter is being sent; None where what it is good for is gone."""
    if wanted.kind == "invite":
        return invites.mint(wanted.invite_id or 0)
    try:
        find(wanted.user_id or 0)
    except NotFound:
        return None
    return ticket(wanted.kind, wanted.user_id, wanted.lifetime, wanted.detail)


@writes
@across_tenants
def ticket(kind: Literal["setup", "reset", "email"], user_id: int | None, lifetime: float, detail: str | None = None) -> str:
    """A single-use link's token; an older one of the same kind and user is void."""
    db.run("DELETE FROM tickets WHERE kind = :kind AND user_id IS NOT DISTINCT FROM :user", kind=kind, user=user_id)
    token = tokens.mint({"setup": "set", "reset": "rst", "email": "eml"}[kind])  # type: ignore[arg-type]
    db.run("""INSERT INTO tickets (kind, hash, user_id, detail, expires_at, created_at)
              VALUES (:kind, :hash, :user, :detail, :until, :now)""",
           kind=kind, hash=tokens.digest(token), user=user_id, detail=detail, until=now(lifetime), now=now())
    return token


@across_tenants
def unclaimed() -> bool:
    """Whether nobody has an account yet: the next administrator is made by the set-up link or the command."""
    return db.value("SELECT 1 FROM users LIMIT 1") is None


@plugin.on("serving")
def offer_set_up(event: str, folder: object, demo: bool = False,
                 link: Callable[[str], None] = lambda path: None, **facts: object) -> None:
    """Where nobody has an account, the server prints a one-time link to make the first administrator; the demo makes its own."""
    if unclaimed() and not demo:
        link(f"/setup/{ticket('setup', None, SET_UP)}")


@across_tenants
def claimable(token: str) -> bool:
    """Whether a set-up link is still good."""
    return unclaimed() and bool(db.value("SELECT 1 FROM tickets WHERE kind = 'setup' AND hash = :hash AND expires_at > :now",
                                         hash=tokens.digest(token), now=now()))


def set_up(token: str, username: str, email: str, password: str) -> User:
    """Make the first administrator by the printed link, once."""
    passwords.acceptable(password)
    return _set_up(tokens.digest(token), username, email, passwords.hashed(password))


@writes
@across_tenants
def _set_up(hash: bytes, username: str, email: str, hashed: str) -> User:
    if not unclaimed() or not db.run("DELETE FROM tickets WHERE kind = 'setup' AND hash = :hash AND expires_at > :now", hash=hash, now=now()):
        raise NotFound("That set-up link is used or expired; start the server again for a new one")
    return add(username, email, hashed, "admin", HOST_TENANT)


def random_password() -> str:
    """A password nobody will guess, for accounts that a command makes."""
    return secrets.token_urlsafe(15)


# The last lines: these use the verbs above.
from .sessions import ACCESS as ACCESS, Session as Session, Tokens as Tokens  # noqa: E402, I001
from .sessions import bearer, end_session, forget_expired, log_in, open_session, refresh, sessions_of  # noqa: E402, F401
from .invites import Invite as Invite  # noqa: E402, I001
from .invites import Pending as Pending  # noqa: E402
from .invites import accept, addressed, count_invitation, invitation, invite, invited, open_invites, revoke  # noqa: E402, F401
from . import invites as invites  # noqa: E402, I001
from . import cookies as cookies  # noqa: E402
from . import people as people  # noqa: E402
from . import account as account  # noqa: E402, I001
from . import erasure as erasure  # noqa: E402
from .erasure import erase, replay_erasures  # noqa: E402, F401
from . import commands as commands  # noqa: E402
