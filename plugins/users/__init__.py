"""Users: tenants, people, sessions, invitations and the single-use links.

Owns tenants, users, sessions, tickets and invites. Every token is stored as its hash.
Surprise: a session is one row with two tokens, a short access and a rotating refresh token;
a refresh token that comes back after its successor was issued ends the session, for
somebody copied it.
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

from . import passwords, tokens

plugin = Plugin("Users", layer="ground", needs=("server",))
plugin.setting("registration", str, "invite", "Who may register: open, invite or closed")
plugin.setting("limit_login", str, "10/3m", "Log-ins from one address")
plugin.setting("limit_login_account", str, "10/15m", "Log-ins to one account from one address")
plugin.setting("limit_register", str, "5/h", "Registrations from one address")
plugin.setting("limit_forgot", str, "3/h", "Forgotten passwords of one address")
plugin.setting("limit_forgot_from", str, "10/h", "Forgotten passwords from one network address")
plugin.setting("limit_link", str, "30/3m", "Mailed links that are followed from one address")
plugin.setting("limit_confirm", str, "10/15m", "Passwords that one person is asked for again")
plugin.setting("limit_refresh", str, "30/m", "Refreshed sessions from one address")

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
        raise Invalid("email: That is not an e-mail address (ASCII; write an international domain as xn--…)",
                      [{"field": "email", "message": "not an e-mail address"}])
    return text


def username_of(text: str) -> str:
    """`text` as a user's name, or Invalid."""
    text = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(text) <= 60 or any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for char in text):
        raise Invalid("username: Use 1 to 60 printable characters", [{"field": "username", "message": "1 to 60 printable characters"}])
    return text


# ── people ──


@writes
@across_tenants
def add(username: str, email: str, password_hash: str, role: str, tenant: int | None = None) -> User:
    """Add a person to `tenant`, or found one for them. Conflict where the name or address is taken."""
    username, email = username_of(username), email_of(email)
    if db.value("SELECT 1 FROM users WHERE email_key = :key", key=folded(email)):
        raise Conflict("That e-mail address has an account; log in, or reset its password")
    if db.value("SELECT 1 FROM users WHERE username_key = :key", key=folded(username)):
        raise Conflict(f"The username {username!r} is taken; choose another")
    founding = tenant is None
    if founding:
        tenant = db.value("INSERT INTO tenants (name, created_at) VALUES (:name, :now) RETURNING id", name=username, now=now())
    user = db.one(User, """
        INSERT INTO users (tenant_id, username, username_key, email, email_key, password, role, created_at, updated_at)
        VALUES (:home, :username, :username_key, :email, :email_key, :password, :role, :now, :now) RETURNING *""",
        home=tenant, username=username, username_key=folded(username), email=email, email_key=folded(email),
        password=password_hash, role=role, now=now())
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
    role = found.role if found.kind == "tenant" else "member"
    user = add(username, email, hashed, role, found.tenant_id)
    try:
        accept(found, user)
    except NotFound:  # what it leads to is gone, or whoever sent it may not invite any more
        raise _unusable() from None
    return user


def _unusable() -> Invalid:
    return Invalid("invite_code: That invitation is unknown, used, expired, or for another address",
                   [{"field": "invite_code", "message": "not usable with this address"}])


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


def log_in(email: str, password: str, agent: str) -> tuple[User, Tokens]:
    """Check a password and open a session; Unauthorized says nothing about which of the two was wrong."""
    row = _account(folded(email))
    if not passwords.matches(password, row and row["password"]):
        raise Unauthorized("Invalid email or password")
    assert row
    return find(row["id"]), open_session(row["id"], agent)


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


def refresh(token: str) -> tuple[User, Tokens]:
    """Rotate: the old pair is spent. A spent refresh token that comes back ends the session (after 10 s of grace)."""
    user_id, pair = _rotate(tokens.digest(token)) if tokens.kind_of(token) == "ref" else (0, None)
    if pair is None:
        raise Unauthorized("That refresh token is unknown, expired or spent; log in again")
    return find(user_id), pair


@writes
@across_tenants
def _rotate(hash: bytes) -> tuple[int, Tokens | None]:
    # It returns rather than raises where a session is ended: raising would undo the ending.
    row = db.one(dict, "SELECT * FROM sessions WHERE refresh_hash = :hash OR previous_hash = :hash", hash=hash)
    if row is None or min(row["refresh_expires_at"], row["ends_at"]) <= now():
        return 0, None
    if row["previous_hash"] == hash and row["rotated_at"] < now(-RETRY):
        db.run("DELETE FROM sessions WHERE id = :id", id=row["id"])
        emit("session.reused", find(row["user_id"]))
        return 0, None
    access, fresh = tokens.mint("ses"), tokens.mint("ref")
    db.run("""
        UPDATE sessions SET access_hash = :access, access_expires_at = :until, refresh_hash = :fresh, last_used_at = :now,
               refresh_expires_at = :idle, previous_hash = :hash, rotated_at = CASE WHEN previous_hash = :hash THEN rotated_at ELSE :now END
         WHERE id = :id""",
        id=row["id"], access=tokens.digest(access), until=now(ACCESS), fresh=tokens.digest(fresh), idle=now(IDLE), hash=hash, now=now())
    return row["user_id"], Tokens(row["id"], access, fresh)


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
    if tokens.kind_of(token) != "ses":
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
from .invites import Invite as Invite  # noqa: E402, I001
from .invites import Pending as Pending  # noqa: E402
from .invites import accept, addressed, invitation, invite, invited, open_invites, revoke  # noqa: E402, F401
from . import people as people  # noqa: E402
from . import account as account  # noqa: E402, I001
from . import erasure as erasure  # noqa: E402
from .erasure import erase, replay_erasures  # noqa: E402, F401
from . import commands as commands  # noqa: E402
