"""Mail: letters to people, sent in the background until they arrive.

Owns letters, and the folder `outbox/`. Without `smtp_url` a letter becomes an `.eml` file there, which any
mail program opens.
Surprise: the link in a letter is a key, so its token is made only when the letter is sent (`wanted`): no row
ever has it. Neither the job nor its error has the text or the address. A letter to nobody is dropped: it costs
whoever asked for it the same time as a real one.
"""
import contextlib
import os
import tempfile
from collections.abc import Callable
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Literal

from orkosi import Check, Plugin, Struct, db, jsoned, now, settings, writes
from plugins import queue

plugin = Plugin("Mail", layer="ground", needs=("queue",))
plugin.setting("smtp_url", str, "", "Where mail is handed in: smtp://user:password@host:port, or smtps://…; empty: files in outbox/", secret=True)
plugin.setting("mail_from", str, "Orkosi <orkosi@localhost>", "Who mail is from")

ATTEMPTS = 13  # with the pauses between them, nearly six hours
KEPT = 7 * 86400
MARK = "\x1a"  # stands in a letter for the token of its link; no name can hold it
ABOUT = "X-Orkosi-About"  # in the outbox alone: a user's number


class Wanted(Struct):
    """A single-use link that a letter is to carry. Its token is made when the letter is sent, so that none lies about meanwhile."""
    kind: Literal["reset", "email", "invite"]
    user_id: int | None = None
    lifetime: float = 0.0
    detail: str | None = None
    invite_id: int | None = None


class Letter(Struct):
    """What somebody is to be told by mail. `text` is what a terminal shows."""
    email: str
    subject: str
    text: str
    html: str | None = None
    about: int | None = None
    wanted: Wanted | None = None
    id: int = 0
    created_at: str = ""


def _nobody(wanted: Wanted) -> str | None:
    return None


_mint: Callable[[Wanted], str | None] = _nobody


class Order(Struct):
    """What the job carries: which letter."""
    letter: int


@writes
def send(to: str, subject: str, text: str, html: str | None = None, *, about: int | None = None,
         wanted: Wanted | None = None) -> None:
    """Have a letter sent soon, with retries; inside a write, only if that write holds. To "" it goes nowhere.

    `about` is the user whom it names: no copy outlives their erasure. `wanted`: the link whose token comes in
    the place of each MARK.
    """
    letter = db.value("""INSERT INTO letters (email, email_key, subject, text, html, about, wanted, created_at)
                         VALUES (:email, lower(:email), :subject, :text, :html, :about, :wanted, :now) RETURNING id""",
                      email=to, subject=subject, text=text, html=html, about=about, wanted=wanted and jsoned(wanted), now=now())
    queue.later("mail.send", Order(letter), attempts=ATTEMPTS, timeout=120)


def mints(mint: Callable[[Wanted], str | None]) -> Callable[[Wanted], str | None]:
    """Register who makes the token of a link; None is for what the link was good for, and is gone."""
    global _mint
    _mint = mint
    return mint


@plugin.job("mail.send")
def deliver(order: Order) -> None:
    """Send one letter and forget it. Unavailable: again later. Unprocessable: refused for good."""
    from . import post  # only here: it takes a while to import
    letter = _with_token(db.one(Letter, "SELECT * FROM letters WHERE id = :id", id=order.letter))
    if letter is None:
        return  # sent by an earlier attempt that was cut off, or its reader was erased
    if letter.email:
        message = post.composed(letter, settings.mail_from)
        if settings.smtp_url:
            post.hand_in(message, letter.email, settings.smtp_url)
        else:
            if letter.about:
                message = f"{ABOUT}: {letter.about}\r\n".encode() + message
            _put_down(f"{letter.created_at.replace(':', '')}-{letter.id}.eml", message)
    forget(letter.id)


def _with_token(letter: Letter | None) -> Letter | None:
    """A letter with the token of its link; to nobody where what the link was good for is gone."""
    if letter is None or letter.wanted is None or not letter.email:
        return letter
    token = _mint(letter.wanted)
    if token is None:
        letter.email = ""
    else:
        letter.text, letter.html = letter.text.replace(MARK, token), letter.html and letter.html.replace(MARK, token)
    return letter


def _put_down(name: str, message: bytes) -> None:
    """Write a whole `.eml` file, readable for its owner alone, or none."""
    folder = outbox()
    handle, part = tempfile.mkstemp(dir=folder)  # made 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(message)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / name)
    except OSError:
        os.unlink(part)
        raise


def outbox() -> Path:
    """The folder of unsent mail."""
    folder: Path = settings.data / "outbox"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@writes
def forget(id: int) -> None:
    """Drop a letter that is sent."""
    db.run("DELETE FROM letters WHERE id = :id", id=id)


@writes
def take_back(user_id: int, *kinds: str) -> None:
    """Send no links of these kinds any more to a user, that wait to be sent: they were asked for before an address or a password was changed."""
    for letter in db.all(Letter, "SELECT * FROM letters WHERE about = :id AND wanted IS NOT NULL", id=user_id):
        if letter.wanted and letter.wanted.user_id == user_id and letter.wanted.kind in kinds:
            forget(letter.id)


@plugin.every("1h")
@writes(durable=False)
def forget_old() -> None:
    """Drop letters that could not be sent for a week; until then an operator may retry their jobs."""
    db.run("DELETE FROM letters WHERE created_at < :before", before=now(-KEPT))


@plugin.on("user.erased")
def erase(event: str, gone: Any, **facts: Any) -> None:
    """No letter to or about somebody who is gone waits to be sent; those of others stay, whatever they say."""
    db.run("DELETE FROM letters WHERE about = :id", id=gone.id)
    for email in gone.addresses:
        db.run("DELETE FROM letters WHERE email_key = lower(:email)", email=email)


@plugin.on("user.gone")
def clear_outbox(event: str, gone: Any, **facts: Any) -> None:
    """None is kept in the outbox, either."""
    from email import message_from_bytes, policy
    addresses = {email.lower() for email in gone.addresses}
    for file in sorted(outbox().glob("*.eml")):
        with contextlib.suppress(FileNotFoundError):
            said = message_from_bytes(file.read_bytes(), policy=policy.default)
            if said[ABOUT] == str(gone.id) or parseaddr(str(said["To"]))[1].lower() in addresses:
                file.unlink()


@plugin.health("mail")
def sending() -> Check:
    """Whether letters have been waiting for long."""
    late = db.value("SELECT count(*) FROM letters WHERE created_at < :before", before=now(-900))
    return Check(not late, f"{late} letters have waited for more than 15 minutes" if late else "")
