"""The wire of users: /auth and what belongs to one's own account."""
from typing import Annotated

from orkosi import PUBLIC, SIGNED_IN, Actor, Deleted, Flat, Meta, NotFound, Request, Struct, Unauthorized, limiter
from plugins import users
from plugins.users import Session, User, plugin

Text = Annotated[str, Meta(min_length=1, max_length=254)]
Secret = Annotated[str, Meta(min_length=1, max_length=512)]


class Registration(Struct, forbid_unknown_fields=True):
    username: Text
    email: Text
    password: Secret
    terms_accepted: bool
    privacy_accepted: bool
    invite_code: str | None = None


class Login(Struct, forbid_unknown_fields=True):
    email: Text
    password: Secret


class SetUp(Struct, forbid_unknown_fields=True):
    token: Secret
    username: Text
    email: Text
    password: Secret


class Refresh(Struct, forbid_unknown_fields=True):
    refresh_token: Secret


class Logout(Struct, forbid_unknown_fields=True):
    all_devices: bool = False


class LoggedIn(Flat):
    success: bool
    token: str
    refresh_token: str
    expires_in: int
    user: User


class LoggedOut(Struct):
    logged_out: int


class Me(Struct):
    id: int | None
    username: str | None
    email: str | None
    role: str
    tenant: int | None
    kind: str
    scopes: list[str] | None = None
    agent: str | None = None


def signed(user: User, pair: users.Tokens) -> LoggedIn:
    return LoggedIn(True, pair.access, pair.refresh, users.ACCESS, user)


@plugin.post("/api/auth/register", auth=PUBLIC, status=201, raises=(400, 409), limit="register", max_body=4096)
def register(body: Registration) -> User:
    """Register a new account

    With an `invite_code` you join the inviter's tenant; without one, where registration is open, you found your own."""
    from orkosi import Invalid
    if not (body.terms_accepted and body.privacy_accepted):
        raise Invalid("terms_accepted, privacy_accepted: Both must be true",
                      [{"field": name, "message": "Must be true"} for name in ("terms_accepted", "privacy_accepted") if not getattr(body, name)])
    return users.register(body.username, body.email, body.password, body.invite_code)


@plugin.post("/api/auth/login", auth=PUBLIC, raises=(400, 401), limit="login", max_body=4096)
def login(body: Login, request: Request) -> LoggedIn:
    """Log in with e-mail and password

    `token` is good for `expires_in` seconds; `refresh_token` gets the next pair from /auth/refresh."""
    limiter.take("login_account", f"{users.folded(body.email)} {request.address}")
    return signed(*users.log_in(body.email, body.password, request.header("User-Agent")))


@plugin.post("/api/auth/setup", auth=PUBLIC, status=201, raises=(404, 409), limit="login", max_body=4096)
def set_up(body: SetUp, request: Request) -> LoggedIn:
    """Make the first administrator with the one-time set-up token"""
    user = users.set_up(body.token, body.username, body.email, body.password)
    return signed(user, users.open_session(user.id, request.header("User-Agent")))


@plugin.post("/api/auth/refresh", auth=PUBLIC, raises=(401,), limit="refresh", max_body=4096)
def refresh(body: Refresh) -> LoggedIn:
    """Exchange a refresh token for a new pair

    Each is good once. One that comes back later than 10 s after its exchange ends the session."""
    return signed(*users.refresh(body.refresh_token))


@plugin.post("/api/auth/logout", auth=SIGNED_IN)
def logout(body: Logout, me: Actor) -> LoggedOut:
    """End this session, or all of one's own"""
    if me.user is None or me.scopes is not None:
        raise Unauthorized("An API key has no session; revoke the key instead")
    return LoggedOut(users.end_session(me.user, None if body.all_devices else int(me.credential)))


@plugin.get("/api/auth/me", auth=SIGNED_IN, raises=(401,))
def me(me: Actor) -> Me:
    """Who this token or key belongs to, and what it may do"""
    person = users.find(me.user) if me.user else None
    return Me(person and person.id, person and person.username, person and person.email, me.role, me.tenant, me.kind,
              sorted(me.scopes) if me.scopes is not None else None, me.name or None)


@plugin.get("/api/auth/sessions", auth=SIGNED_IN)
def sessions(me: Actor) -> list[Session]:
    """List one's own sessions, newest first"""
    return users.sessions_of(me.user, me.credential) if me.user else []


@plugin.delete("/api/auth/sessions/{id}", auth=SIGNED_IN, raises=(404,))
def end(id: int, me: Actor) -> Deleted:
    """End one of one's own sessions"""
    if me.user is None or me.scopes is not None or not users.end_session(me.user, id):
        raise NotFound(f"You have no session {id}")
    return Deleted(id)

