"""Mail: letters to people, sent in the background until they arrive.

Owns letters, and the folder `outbox/`. Without `smtp_url` a letter becomes an `.eml` file there, which any
mail program opens. A plugin that this one stands upon asks by the event `mail.wanted`.
Surprise: a letter may hold a link that is a key, so its row lasts only until it is sent, and neither the
job nor its error ever has the text or the address. A letter to nobody is dropped: it costs whoever asked
for it the same time as a real one.
"""
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from orkosi import Check, Plugin, Struct, db, now, settings, writes
from plugins import queue

plugin = Plugin("Mail", layer="ground", needs=("queue",))
plugin.setting("smtp_url", str, "", "Where mail is handed in: smtp://user:password@host:port, or smtps://…; empty: files in outbox/", secret=True)
plugin.setting("mail_from", str, "Orkosi <orkosi@localhost>", "Who mail is from")

ATTEMPTS = 12  # with the pauses between them, nearly six hours
KEPT = 7 * 86400
ABOUT = "X-Orkosi-About"  # in the outbox alone: a user's number


class Letter(Struct):
    """What somebody is to be told by mail. `text` is what a terminal shows."""
    email: str
    subject: str
    text: str
    html: str | None = None
    about: int | None = None
    id: int = 0
    created_at: str = ""


class Order(Struct):
    """What the job carries: which letter."""
    letter: int


@writes
def send(to: str, subject: str, text: str, html: str | None = None, *, about: int | None = None) -> None:
    """Have a letter sent soon, with retries; inside a write, only if that write holds. To "" it goes nowhere.

    `about` is the user whom it names: no copy outlives their erasure.
    """
    letter = db.value("""INSERT INTO letters (email, email_key, subject, text, html, about, created_at)
                         VALUES (:email, lower(:email), :subject, :text, :html, :about, :now) RETURNING id""",
                      email=to, subject=subject, text=text, html=html, about=about, now=now())
    queue.later("mail.send", Order(letter), attempts=ATTEMPTS, timeout=120)


@plugin.on("mail.wanted")
def wanted(event: str, letter: Any, **facts: Any) -> None:
    """A lower plugin wants a letter sent."""
    send(letter.email, letter.subject, letter.text, letter.html, about=letter.about)


@plugin.job("mail.send")
def deliver(order: Order) -> None:
    """Send one letter and forget it. Unavailable: again later. Unprocessable: refused for good."""
    from . import post  # only here: it takes a while to import
    letter = db.one(Letter, "SELECT * FROM letters WHERE id = :id", id=order.letter)
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


@plugin.every("1h")
@writes(durable=False)
def forget_old() -> None:
    """Drop letters that could not be sent for a week; until then an operator may retry their jobs."""
    db.run("DELETE FROM letters WHERE created_at < :before", before=now(-KEPT))


@plugin.on("user.erased")
def erase(event: str, gone: Any, **facts: Any) -> None:
    """No letter to or about somebody who is gone is kept, waiting or in the outbox."""
    db.run("DELETE FROM letters WHERE about = :id", id=gone.id)
    for email in gone.addresses:
        db.run("DELETE FROM letters WHERE email_key = lower(:email)", email=email)
    db.after_commit(lambda: _clear_outbox(gone.id, gone.addresses))


def _clear_outbox(id: int, addresses: list[str]) -> None:
    needles = [f"{ABOUT}: {id}\r\n".lower().encode(), *(email.lower().encode() for email in addresses)]
    for file in outbox().iterdir():
        with contextlib.suppress(FileNotFoundError):
            said = file.read_bytes().replace(b"=\r\n", b"").lower()  # a long line may be folded in the middle of the address
            if any(needle in said for needle in needles):
                file.unlink()


@plugin.health("mail")
def sending() -> Check:
    """Whether letters have been waiting for long."""
    late = db.value("SELECT count(*) FROM letters WHERE created_at < :before", before=now(-900))
    return Check(not late, f"{late} letters have waited for more than 15 minutes" if late else "")
