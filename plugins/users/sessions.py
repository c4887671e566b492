"""Sessions: logging in, the pair of tokens, its rotation, and who a token speaks for.

Owns sessions and spent_tokens. Surprise: a session is one row with two tokens, a short access and a rotating refresh token.
Every spent refresh token is remembered: one that comes back ends the session, for somebody copied it. What follows a token is
derived from it, so that a request which is repeated at once gets the same pair, and no second one.
"""
import secrets

from orkosi import RANKS, Actor, Request, Struct, Unauthorized, across_tenants, db, emit, now, writes
from plugins.server.limits import limiter

from . import User, find, folded, passwords, plugin, tokens

ACCESS, IDLE, ABSOLUTE = 30 * 60, 14 * 86400, 30 * 86400  # seconds
RETRY = 10  # seconds in which a repeated refresh is the same one


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
    hashed = row["password"]
    if passwords.dated(hashed):
        hashed = _renew(row["id"], hashed, passwords.hashed(password))
    return find(row["id"]), open_session(row["id"], agent, proven=hashed)


@writes
@across_tenants
def _renew(id: int, old: str, hashed: str) -> str:
    """Put a hash with today's parameters in an old one's place, unless the password was changed meanwhile; the hash that was proven."""
    return hashed if db.run("UPDATE users SET password = :hashed WHERE id = :id AND password = :old", id=id, old=old, hashed=hashed) else old


@across_tenants
def _account(key: str) -> dict | None:
    return db.one(dict, "SELECT id, password FROM users WHERE email_key = :key", key=key)


@writes
@across_tenants
def open_session(user_id: int, agent: str, proven: str | None = None) -> Tokens:
    """A new session with new tokens, so that none can have been planted before the log-in.

    Unauthorized where the password is not the one whose hash was `proven` any more: whoever changed it ended every session before this one.
    """
    if proven is not None and db.value("SELECT password FROM users WHERE id = :id", id=user_id) != proven:
        raise Unauthorized("Invalid email or password")
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
        db.run("INSERT INTO spent_tokens (hash, session_id) VALUES (:hash, :id) ON CONFLICT DO NOTHING", hash=hash, id=row["id"])
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
def by_session(request: Request) -> Actor | None:
    """The person behind a session's access token."""
    return whose(bearer(request))


@across_tenants
def whose(token: str) -> Actor | None:
    """The person for whom an access token speaks; None where it is none, or its time is over."""
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
                 owner=founder, credential=str(row["session"]))


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
