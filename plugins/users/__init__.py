"""Users: tenants, people, sessions, invitations and the single-use links.

Owns tenants, users, sessions, spent_tokens, tickets and invites. Every token is stored as its hash.
Surprise: a session is one row with two tokens, a short access and a rotating refresh token. Every spent
refresh token is remembered: one that comes back ends the session, for somebody copied it. What follows a
token is derived from it, so that a request which is repeated at once gets the same pair, and no second one.
"""
import re
import secrets
import unicodedata
from collections.abc import Callable
from typing import Literal

import msgspec

from orkosi import (
    HOST_TENANT,
    RANKS,
    Actor,
    Conflict,
    Invalid,
    NotFound,
    Plugin,
    Request,
    Struct,
    Unauthorized,
    across_tenants,
    db,
    emit,
    now,
    settings,
    writes,
)
from plugins import fields
from plugins.fields import wrong
from plugins.server.limits import limiter

from . import passwords, tokens

plugin = Plugin("Users", layer="ground", needs=("server", "storage", "fields"))
plugin.setting("registration", str, "invite", "Who may register: open, invite or closed")
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
ACCESS, IDLE, ABSOLUTE = 30 * 60, 14 * 86400, 30 * 86400  # seconds
SET_UP, RETRY = 24 * 3600, 10


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


class Session(Struct):
    """One log-in: where from, until when."""
    id: int
    agent: str
    created_at: str
    last_used_at: str
    ends_at: str
    current: bool = False


class Tokens(Struct):
    """A fresh pair; shown once."""
    session_id: int
    access: str
    refresh: str


@plugin.on("opened")
@across_tenants
def make_host(event: str, folder: object) -> None:
    """The host tenant exists from the start."""
    db.run("INSERT OR IGNORE INTO tenants (id, name, created_at) VALUES (1, 'Host', :now)", now=now())


# ── names and addresses ──


def folded(text: str) -> str:
    """What two spellings of one name have in common."""
    return unicodedata.normalize("NFKC", text).casefold().strip()


def email_of(text: str) -> str:
    """`text` as an address, or Invalid. ASCII alone: a look-alike letter would make another account of one name."""
    text = text.strip()
    if len(text) > 254 or not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9-]+", text):
        raise wrong("email", "That is not an e-mail address (ASCII; write an international domain as xn--…)")
    return text


def username_of(text: str) -> str:
    """`text` as a user's name, or Invalid."""
    return fields.printable(text, "username", 60)


# ── people ──


@writes
@across_tenants
def add(username: str, email: str, password_hash: str, role: str, tenant: int | None = None, *, proven: bool = False) -> User:
    """Add a person to `tenant`, or found one for them. Conflict where the name or address is taken.

    `proven`: it is known that the address is that person's, by a mail they answered or by the operator's word.
    """
    username, email = username_of(username), email_of(email)
    if db.value("SELECT 1 FROM users WHERE email_key = :key", key=folded(email)):
        raise Conflict("That e-mail address has an account; log in, or reset its password")
    if db.value("SELECT 1 FROM users WHERE username_key = :key", key=folded(username)):
        raise Conflict(f"The username {username!r} is taken; choose another")
    founding = tenant is None
    if founding:
        tenant = db.value("INSERT INTO tenants (name, created_at) VALUES (:name, :now) RETURNING id", name=username, now=now())
    user = db.one(User, """
        INSERT INTO users (tenant_id, username, username_key, email, email_key, email_proven_at, password, role, created_at, updated_at)
        VALUES (:home, :username, :username_key, :email, :email_key, :proven, :password, :role, :now, :now) RETURNING *""",
        home=tenant, username=username, username_key=folded(username), email=email, email_key=folded(email),
        proven=now() if proven else None, password=password_hash, role=role, now=now())
    if founding:
        db.run("UPDATE tenants SET founder_id = :id WHERE id = :home", id=user.id, home=tenant)
    emit("user.added", user)
    return user


@across_tenants
def find(id: int) -> User:
    """One person, whatever the tenant; callers decide who may see them. NotFound."""
    user = db.one(User, "SELECT * FROM users WHERE id = :id", id=id)
    if user is None:
        raise NotFound(f"There is no user {id}")
    return user


def register(username: str, email: str, password: str, code: str | None) -> User:
    """Join the inviter's tenant by `code`, or found a tenant where registration is open."""
    if code is None and settings.registration != "open":
        raise Invalid("invite_code: Registration here is by invitation; ask for one" if settings.registration == "invite"
                      else "Registration is closed here", [{"field": "invite_code", "message": "Required"}])
    passwords.acceptable(password)
    username_of(username), email_of(email)
    hashed = passwords.hashed(password)  # before the transaction: it takes a fifth of a second
    if code is None:
        return add(username, email, hashed, "member")
    return _join(username, email, hashed, code)


@writes
@across_tenants
def _join(username: str, email: str, hashed: str, code: str) -> User:
    found = invited(code)
    if found is None or folded(found.email) != folded(email):
        raise _unusable()
    try:
        user = add(username, email, hashed, *invites.place_for(found), proven=True)
        accept(found, user)
    except NotFound:  # what it leads to is gone, or whoever sent it may not invite any more
        raise _unusable() from None
    return user


def _unusable() -> Invalid:
    return wrong("invite_code", "That invitation is unknown, used, expired, or for another address")


def in_charge(me: Actor) -> bool:
    """Whether this person runs the tenant: its founder, or an administrator of it."""
    return me.user is not None and me.scopes is None and (me.billing or me.rank >= RANKS["admin"])


@across_tenants
def actor_of(user: User, **more: object) -> Actor:
    """`user` as an actor in the home tenant; a tenant's founder has an editor's rank and the billing in it."""
    founder = bool(db.value("SELECT 1 FROM tenants WHERE id = :home AND founder_id = :id", home=user.tenant_id, id=user.id))
    rank = max(RANKS.get(user.role, 0), RANKS["editor"] if founder else 0)
    return Actor(kind="user", id=str(user.id), tenant=user.tenant_id, rank=rank, role=user.role, user=user.id,
                 billing=founder or user.role == "admin", **more)  # type: ignore[arg-type]


@across_tenants
def in_tenant(me: Actor, asked: int | None) -> Actor:
    """`me` in the tenant a request named: one's own, or any for an administrator of the host. NotFound otherwise."""
    if asked is None or asked == me.tenant:
        return me
    if me.host and me.scopes is None and me.rank >= RANKS["admin"] and db.value("SELECT 1 FROM tenants WHERE id = :id", id=asked):
        return msgspec.structs.replace(me, tenant=asked)
    raise NotFound(f"There is no tenant {asked}")


# ── sessions ──


def log_in(email: str, password: str, agent: str, address: str = "") -> tuple[User, Tokens]:
    """Check a password and open a session; Unauthorized says nothing about which of the two was wrong.

    Only wrong passwords are counted, for an account from an address, and beyond the limit they are TooMany.
    The right one is never refused: else whoever knows an address could lock its owner out.
    """
    key = folded(email)
    place, row = f"{key} {address}", _account(key)
    doubtful = limiter.spent("login", address) or limiter.spent("login_account", place)
    if not passwords.matches(password, row and row["password"], doubtful=doubtful):
        limiter.take("login_account", place)
        limiter.take("login", address)
        raise Unauthorized("Invalid email or password")
    assert row
    if passwords.dated(row["password"]):
        _renew(row["id"], row["password"], passwords.hashed(password))
    return find(row["id"]), open_session(row["id"], agent)


@writes
@across_tenants
def _renew(id: int, old: str, hashed: str) -> None:
    """Put a hash with today's parameters in an old one's place, unless the password was changed meanwhile."""
    db.run("UPDATE users SET password = :hashed WHERE id = :id AND password = :old", id=id, old=old, hashed=hashed)


@across_tenants
def _account(key: str) -> dict | None:
    return db.one(dict, "SELECT id, password FROM users WHERE email_key = :key", key=key)


@writes
@across_tenants
def open_session(user_id: int, agent: str) -> Tokens:
    """A new session with new tokens, so that none can have been planted before the log-in."""
    access, refresh = tokens.mint("ses"), tokens.mint("ref")
    id = db.value("""
        INSERT INTO sessions (user_id, access_hash, access_expires_at, refresh_hash, refresh_expires_at, ends_at, agent, created_at, last_used_at)
        VALUES (:user, :access, :access_until, :refresh, :refresh_until, :ends, :agent, :now, :now) RETURNING id""",
        user=user_id, access=tokens.digest(access), access_until=now(ACCESS), refresh=tokens.digest(refresh),
        refresh_until=now(IDLE), ends=now(ABSOLUTE), agent=agent[:200], now=now())
    return Tokens(id, access, refresh)


def refresh(token: str, address: str = "") -> tuple[User, Tokens]:
    """Rotate: the old pair is spent. A spent refresh token that comes back ends the session (after 10 s of grace)."""
    owner = _owner_of(tokens.digest(token)) if tokens.is_one(token, "ref") else None
    if tokens.is_one(token, "ref"):
        limiter.take("refresh", f"{owner or 'nobody'} {address}")
    user_id, pair = _rotate(token) if owner else (0, None)
    if pair is None:
        raise Unauthorized("That refresh token is unknown, expired or spent; log in again")
    return find(user_id), pair


BY_REFRESH = """
    SELECT * FROM sessions WHERE refresh_hash = :hash OR previous_hash = :hash
        OR id = (SELECT session_id FROM spent_tokens WHERE spent_tokens.hash = :hash)"""


@across_tenants
def _owner_of(hash: bytes) -> int | None:
    row = db.one(dict, BY_REFRESH, hash=hash)
    return row and row["user_id"]


@writes
@across_tenants
def _rotate(token: str) -> tuple[int, Tokens | None]:
    # It returns rather than raises where a session is ended: raising would undo the ending.
    hash = tokens.digest(token)
    row = db.one(dict, BY_REFRESH, hash=hash)
    if row is None or min(row["refresh_expires_at"], row["ends_at"]) <= now():
        return 0, None
    repeated = row["previous_hash"] == hash and row["rotated_at"] >= now(-RETRY) and row["seed"]
    if row["refresh_hash"] != hash and not repeated:
        db.run("DELETE FROM sessions WHERE id = :id", id=row["id"])
        emit("session.reused", find(row["user_id"]))
        return 0, None
    seed = row["seed"] or secrets.token_bytes(32)
    pair = Tokens(row["id"], tokens.derived("ses", seed, token), tokens.derived("ref", seed, token))
    if not repeated:
        db.run("""
            UPDATE sessions SET access_hash = :access, access_expires_at = :until, refresh_hash = :fresh, last_used_at = :now, seed = :seed,
                   refresh_expires_at = :idle, previous_hash = :hash, rotated_at = :now WHERE id = :id""",
            id=row["id"], access=tokens.digest(pair.access), until=now(ACCESS), fresh=tokens.digest(pair.refresh), idle=now(IDLE),
            hash=hash, seed=seed, now=now())
        db.run("INSERT OR IGNORE INTO spent_tokens (hash, session_id) VALUES (:hash, :id)", hash=hash, id=row["id"])
    return row["user_id"], pair


@across_tenants
def sessions_of(user_id: int, current: str = "") -> list[Session]:
    """A user's open sessions, newest first."""
    found = db.all(Session, "SELECT * FROM sessions WHERE user_id = :id AND ends_at > :now ORDER BY id DESC", id=user_id, now=now())
    for session in found:
        session.current = str(session.id) == current
    return found


@writes
@across_tenants
def end_session(user_id: int, session_id: int | None) -> int:
    """End one session, or with None all; how many ended."""
    if session_id is None:
        return db.run("DELETE FROM sessions WHERE user_id = :user", user=user_id)
    return db.run("DELETE FROM sessions WHERE user_id = :user AND id = :id", user=user_id, id=session_id)


def bearer(request: Request) -> str:
    """The token of `Authorization: Bearer …`; "" where there is none."""
    kind, _, token = request.header("Authorization").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


@plugin.authenticator
@across_tenants
def by_session(request: Request) -> Actor | None:
    """The person behind a session's access token."""
    token = bearer(request)
    if not tokens.is_one(token, "ses"):
        return None
    row = db.one(dict, """
        SELECT sessions.id AS session, users.id, users.tenant_id, users.role, tenants.founder_id FROM sessions
          JOIN users ON users.id = sessions.user_id JOIN tenants ON tenants.id = users.tenant_id
         WHERE access_hash = :hash AND access_expires_at > :now AND ends_at > :now""", hash=tokens.digest(token), now=now())
    if row is None:
        return None
    _used[row["session"]] = now()
    founder = row["founder_id"] == row["id"]
    return Actor(kind="user", id=str(row["id"]), tenant=row["tenant_id"], role=row["role"], user=row["id"],
                 rank=max(RANKS.get(row["role"], 0), RANKS["editor"] if founder else 0),
                 billing=founder or row["role"] == "admin", credential=str(row["session"]))


_used: dict[int, str] = {}  # session → last use; written once a second, not once a request


@plugin.every("1s")
def stamp_sessions() -> None:
    """Write down when sessions were last used."""
    if _used:
        batch = [(_id, _used.pop(_id)) for _id in list(_used)]
        _stamp(batch)


@writes(durable=False)
@across_tenants
def _stamp(batch: list[tuple[int, str]]) -> None:
    for id, when in batch:
        db.run("UPDATE sessions SET last_used_at = :when WHERE id = :id", id=id, when=when)


@plugin.every("1h")
@writes(durable=False)
@across_tenants
def forget_expired() -> None:
    """Drop sessions and single-use links whose time is over."""
    db.run("DELETE FROM sessions WHERE ends_at < :now OR refresh_expires_at < :now", now=now())
    db.run("DELETE FROM tickets WHERE expires_at < :now", now=now())


# ── single-use links ──


class Wanted(Struct):
    """A single-use link that a letter is to carry. Its token is made when the letter is sent, so that none lies about meanwhile."""
    kind: Literal["reset", "email", "invite"]
    user_id: int | None = None
    lifetime: float = 0.0
    detail: str | None = None
    invite_id: int | None = None


def minted(wanted: Wanted) -> str | None:
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
    db.run("DELETE FROM tickets WHERE kind = :kind AND user_id IS :user", kind=kind, user=user_id)
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
                 link: Callable[[str], None] = lambda path: None) -> None:
    """Where nobody has an account, the server prints a one-time link to make the first administrator; the demo makes its own."""
    if unclaimed() and not demo:
        link(f"/setup/{ticket('setup', None, SET_UP)}")


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
from . import shares as shares  # noqa: E402, I001
from .invites import Invite as Invite  # noqa: E402, I001
from .invites import Pending as Pending  # noqa: E402
from .invites import accept, addressed, count_invitation, invitation, invite, invited, open_invites, revoke  # noqa: E402, F401
from . import invites as invites  # noqa: E402, I001
from . import people as people  # noqa: E402
from . import account as account  # noqa: E402, I001
from . import erasure as erasure  # noqa: E402
from .erasure import erase, replay_erasures  # noqa: E402, F401
from . import commands as commands  # noqa: E402
