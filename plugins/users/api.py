"""The wire of users: /auth and what belongs to one's own account."""
from typing import Annotated

from orkosi import PERSON, PUBLIC, SIGNED_IN, Actor, Deleted, Flat, Meta, NotFound, Page, Paging, Request, Struct, may
from plugins import users
from plugins.fields import Many
from plugins.users import Session, User, account, erasure, people, plugin
from plugins.users.people import Person, UserPatch

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


class Forgotten(Struct, forbid_unknown_fields=True):
    email: Text


class Reset(Struct, forbid_unknown_fields=True):
    token: Secret
    password: Secret


class NewPassword(Struct, forbid_unknown_fields=True):
    current_password: Secret
    new_password: Secret


class NewEmail(Struct, forbid_unknown_fields=True):
    email: Text
    password: Secret


class Token(Struct, forbid_unknown_fields=True):
    token: Secret


class Sent(Struct):
    message: str


class Success(Struct):
    success: bool


class Invitation(Struct):
    kind: str
    email: str
    role: str
    expires_at: str


class PeopleQuery(Paging):
    limit: Many = 1000


def signed(user: User, pair: users.Tokens) -> LoggedIn:
    return LoggedIn(True, pair.access, pair.refresh, users.ACCESS, user)


@plugin.post("/api/auth/register", lane="hash", auth=PUBLIC, status=201, raises=(400, 409), limit="register", max_body=4096)
def register(body: Registration) -> User:
    """Register a new account

    With an `invite_code` you join the inviter's tenant; without one, where registration is open, you found your own."""
    from orkosi import Invalid
    if not (body.terms_accepted and body.privacy_accepted):
        raise Invalid("terms_accepted, privacy_accepted: Both must be true",
                      [{"field": name, "message": "Must be true"} for name in ("terms_accepted", "privacy_accepted") if not getattr(body, name)])
    return users.register(body.username, body.email, body.password, body.invite_code)


@plugin.post("/api/auth/login", lane="hash", auth=PUBLIC, raises=(400, 401, 429), max_body=4096)
def login(body: Login, request: Request) -> LoggedIn:
    """Log in with e-mail and password

    Wrong passwords are limited, for an account from an address; the right one never is. `token` is good for `expires_in` seconds;
    `refresh_token` gets the next pair from /auth/refresh."""
    return signed(*users.log_in(body.email, body.password, request.header("User-Agent"), request.address))


@plugin.post("/api/auth/setup", lane="hash", auth=PUBLIC, status=201, raises=(404, 409), limit="link", max_body=4096)
def set_up(body: SetUp, request: Request) -> LoggedIn:
    """Make the first administrator with the one-time set-up token"""
    user = users.set_up(body.token, body.username, body.email, body.password)
    return signed(user, users.open_session(user.id, request.header("User-Agent")))


@plugin.post("/api/auth/refresh", auth=PUBLIC, raises=(401, 429), max_body=4096)
def refresh(body: Refresh, request: Request) -> LoggedIn:
    """Exchange a refresh token for a new pair

    Each is good once; repeated within 10 s, it gets the same pair. One that comes back later, however old, ends the session."""
    return signed(*users.refresh(body.refresh_token, request.address))


@plugin.post("/api/auth/logout", auth=PERSON)
def logout(body: Logout, me: Actor) -> LoggedOut:
    """End this session, or all of one's own"""
    return LoggedOut(users.end_session(me.user or 0, None if body.all_devices else int(me.credential or 0)))


@plugin.get("/api/auth/me", quick=True, auth=SIGNED_IN, raises=(401,), tool="whoami")
def me(me: Actor) -> Me:
    """Who this token or key belongs to, and what it may do"""
    person = users.find(me.user) if me.user else None
    return Me(person and person.id, person and person.username, person and person.email, me.role, me.tenant, me.kind,
              sorted(me.scopes) if me.scopes is not None else None, me.name or None)


@plugin.get("/api/auth/sessions", quick=True, auth=PERSON)
def sessions(me: Actor) -> list[Session]:
    """List one's own sessions, newest first"""
    return users.sessions_of(me.user or 0, me.credential)


@plugin.delete("/api/auth/sessions/{id}", auth=PERSON, raises=(404,))
def end(id: int, me: Actor) -> Deleted:
    """End one of one's own sessions"""
    if not users.end_session(me.user or 0, id):
        raise NotFound(f"You have no session {id}")
    return Deleted(id)


# ── passwords and addresses ──


@plugin.post("/api/auth/forgot-password", auth=PUBLIC, limit="forgot_from", max_body=4096)
def forgot_password(body: Forgotten) -> Sent:
    """Ask for a link to choose a new password

    The answer is the same whether the address has an account or not."""
    account.forgot(body.email)
    return Sent("If that address has an account, a link is on its way")


@plugin.post("/api/auth/reset-password", lane="hash", auth=PUBLIC, raises=(404,), limit="link", max_body=4096)
def reset_password(body: Reset) -> Success:
    """Choose a new password by the mailed link's token

    Good once, within 30 minutes. Every session ends."""
    account.reset(body.token, body.password)
    return Success(True)


@plugin.post("/api/auth/change-password", lane="hash", auth=may("viewer"), raises=(429,), max_body=4096)
def change_password(body: NewPassword, me: Actor) -> LoggedOut:
    """Choose another password

    Every other session ends."""
    return LoggedOut(account.change_password(me.user or 0, body.current_password, body.new_password, me.credential))


@plugin.post("/api/auth/change-email", lane="hash", auth=may("viewer"), raises=(429,), max_body=4096)
def change_email(body: NewEmail, me: Actor) -> Sent:
    """Ask for another address

    A link goes there, good once and for a day; until it is followed, the old address stays."""
    account.change_email(me.user or 0, body.email, body.password)
    return Sent("If nobody else has that address, a link is on its way")


@plugin.post("/api/auth/verify-email", auth=PUBLIC, raises=(404,), limit="link", max_body=4096)
def verify_email(body: Token) -> Success:
    """Confirm a new address by the mailed link's token"""
    account.verify_email(body.token)
    return Success(True)


@plugin.post("/api/auth/invitation", auth=PUBLIC, raises=(404,), limit="link", max_body=4096)
def invitation(body: Token) -> Invitation:
    """What an invitation's code is good for, told to whoever has it"""
    found = users.invited(body.token)
    if found is None:
        raise NotFound("That invitation is unknown, used or expired")
    return Invitation(found.kind, found.email, found.role, found.expires_at)


# ── people ──


@plugin.get("/api/users", quick=True, auth=may("demo", "users:read"))
def index(query: PeopleQuery) -> Page[Person]:
    """List the people of one's tenant

    Newest first. The role `demo` sees ids and names alone."""
    return people.page(query)


@plugin.get("/api/users/{id}", quick=True, auth=may("demo", "users:read"), raises=(404,))
def show(id: int) -> Person:
    """Show one of the people of one's tenant"""
    return people.find(id)


@plugin.patch("/api/users/{id}", auth=may("admin"), raises=(404, 409))
def update(id: int, body: UserPatch) -> User:
    """Change a user's name, address or role

    A new role ends their sessions. Nobody changes their own role, nobody becomes an `agent`, and the last administrator stays."""
    return people.change(id, body)


@plugin.delete("/api/users/me", auth=may("viewer"), raises=(409,))
def leave() -> Deleted:
    """Erase one's own account

    For good, and in every record that names one. Administrators cannot; nor can the only owner of an organization with others in it. A tenant that
    one founded goes to the highest of those who stay."""
    return Deleted(erasure.leave())


@plugin.delete("/api/users/{id}", auth=may("admin"), raises=(404, 409))
def dismiss(id: int) -> Deleted:
    """Erase somebody's account

    Not one's own. Everything that names the person goes; keys they made are revoked."""
    erasure.dismiss(id)
    return Deleted(id)
