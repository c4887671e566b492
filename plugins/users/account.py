"""One's own account: a forgotten password, a new one, another address.

Surprise: for a link it is said what it is to be good for; its token is made when the letter is sent, and never
stored. For an address nobody has, a letter to nobody is sent: the answer, and the time it takes, are the same.
"""
from html import escape

from orkosi import Conflict, Denied, NotFound, across_tenants, db, emit, now, writes
from plugins import mail, server
from plugins.mail import Wanted
from plugins.server.limits import limiter
from plugins.users import email_of, find, folded, passwords, people, tokens

RESET, VERIFY = 30 * 60, 24 * 3600


def notice(email: str, subject: str, sentences: list[str], about: int | None, link: str = "", wanted: Wanted | None = None) -> None:
    """Have a short letter sent, in plain text and HTML; inside a write. In its `link` stands mail.MARK for the token of `wanted`."""
    text = "\n\n".join([*sentences[:1], *([f"  {link}"] if link else []), *sentences[1:]]) + "\n"
    first, *rest = [f"<p>{escape(one)}</p>" for one in sentences]
    html = first + (f'<p><a href="{escape(link)}">{escape(link)}</a></p>' if link else "") + "".join(rest)
    mail.send(email, subject, text, html, about=about, wanted=wanted)


# ── a forgotten password ──


def forgot(email: str) -> None:
    """Mail a link to whoever has the address; nobody learns whether somebody does. Invalid, TooMany."""
    key = folded(email_of(email))
    limiter.take("forgot", key)
    _forgot(key)


@writes
@across_tenants
def _forgot(key: str) -> None:
    user = db.one(dict, "SELECT id, email FROM users WHERE email_key = :key", key=key) or {"id": None, "email": ""}
    notice(user["email"], "A new password for Orkosi", [
        "Somebody, perhaps you, asked for a new password. Choose it here, once, within 30 minutes:",
        "If it was not you, ignore this mail; your password stays as it is."], user["id"], f"{server.url()}/reset/{mail.MARK}",
        Wanted("reset", user["id"], RESET))


def reset(token: str, password: str) -> None:
    """Choose a new password by a mailed link, once; every session ends. NotFound, Invalid."""
    passwords.acceptable(password)
    hash = tokens.digest(token)
    if not tokens.is_one(token, "rst") or not _open("reset", hash):
        raise _spent()
    _reset(hash, passwords.hashed(password))


@writes
@across_tenants
def _reset(hash: bytes, hashed: str) -> None:
    found = db.value("DELETE FROM tickets WHERE kind = 'reset' AND hash = :hash AND expires_at > :now RETURNING user_id", hash=hash, now=now())
    if found is None:
        raise _spent()
    _set(found, hashed)
    db.run("UPDATE users SET email_proven_at = ifnull(email_proven_at, :now) WHERE id = :id", id=found, now=now())  # the link came by mail


@across_tenants
def _open(kind: str, hash: bytes) -> bool:
    return bool(db.value("SELECT 1 FROM tickets WHERE kind = :kind AND hash = :hash AND expires_at > :now", kind=kind, hash=hash, now=now()))


def _spent() -> NotFound:
    return NotFound("That link is used or expired; ask for a new one")


# ── a new password ──


def change_password(id: int, current: str, new: str, session: str) -> int:
    """Choose another password, knowing the present one; how many other sessions that ended. Denied, Invalid."""
    confirm(id, current)
    return _set(id, passwords.hashed(passwords.acceptable(new)), keep=session)


def set_password(id: int, password: str) -> None:
    """Give somebody a new password, by command; every session ends. Invalid."""
    _set(id, passwords.hashed(passwords.acceptable(password)))


@writes
@across_tenants
def _set(id: int, hashed: str, keep: str = "") -> int:
    user = find(id)
    db.run("UPDATE users SET password = :hashed, updated_at = :now WHERE id = :id", id=id, hashed=hashed, now=now())
    db.run("DELETE FROM tickets WHERE user_id = :id", id=id)
    mail.take_back(id, "reset", "email")
    ended = db.run("DELETE FROM sessions WHERE user_id = :id AND id <> :keep", id=id, keep=int(keep or 0))
    notice(user.email, "Your password for Orkosi was changed", [
        "Your password was changed, and you were logged out everywhere else.",
        "If that was not you, ask for a new password at once, and tell your administrator."], user.id)
    emit("user.password_changed", user)
    return ended


@across_tenants
def confirm(id: int, password: str) -> None:
    """Whether that is the user's password; Denied where not, after the same time."""
    limiter.take("confirm", str(id))
    if not passwords.matches(password, db.value("SELECT password FROM users WHERE id = :id", id=id)):
        raise Denied("That is not your present password")


# ── another address ──


def change_email(id: int, email: str, password: str) -> None:
    """Mail a link to a new address; the old one stays until it is followed. Denied, Invalid."""
    email = email_of(email)
    confirm(id, password)
    _change_email(id, email)


@writes
@across_tenants
def _change_email(id: int, email: str) -> None:
    taken = db.value("SELECT 1 FROM users WHERE email_key = :key AND id <> :id", key=folded(email), id=id)
    name = find(id).username
    notice("" if taken else email, "Your new address for Orkosi", [
        f"{name} wants to use this address in Orkosi. To confirm, open this link (once, within a day):",
        "If that is not you, ignore this mail."], id, f"{server.url()}/verify/{mail.MARK}", Wanted("email", id, VERIFY, email))


@writes
@across_tenants
def verify_email(token: str) -> None:
    """Make the address that a link was sent to the user's own. NotFound, Conflict."""
    found = db.one(dict, "DELETE FROM tickets WHERE kind = 'email' AND hash = :hash AND expires_at > :now RETURNING user_id, detail",
                   hash=tokens.digest(token), now=now())
    if found is None:
        raise _spent()
    old, email = find(found["user_id"]), found["detail"]
    try:
        people.free("email", folded(email), old.id)
    except Conflict:
        raise _spent() from None
    db.run("UPDATE users SET email = :email, email_key = :key, email_proven_at = :now, updated_at = :now WHERE id = :id",
           email=email, key=folded(email), id=old.id, now=now())
    db.run("DELETE FROM tickets WHERE user_id = :id", id=old.id)
    mail.take_back(old.id, "reset", "email")
    notice(old.email, "Your address for Orkosi was changed", [
        "Your account has another address from now on.", "If that was not you, tell your administrator at once."], old.id)
    emit("user.changed", find(old.id))


