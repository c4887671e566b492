"""Mail, by a real SMTP server on loopback: what arrives, what is tried again, what is refused."""
import email
import os
import socket
import stat
from email.policy import default

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from orkosi import HOST_TENANT, acting, db, settings, system, writes
from plugins import mail, queue
from plugins.queue import executor

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH")  # on loopback


class Mailbox:
    """What the mail server took in; `answers` are what it says to the next messages instead of 250."""

    def __init__(self):
        self.messages, self.recipients, self.answers, self.refused = [], [], [], set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in self.refused:
            return f"550 5.1.1 <{address}> does not live here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.answers:
            return self.answers.pop(0)
        self.messages.append(email.message_from_bytes(envelope.content, policy=default))
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def mailbox(data):
    """A mail server that wants a password, and the setting that has it."""
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), auth_required=True, auth_require_tls=False,
                            authenticator=lambda server, session, envelope, mechanism, given: AuthResult(
                                success=(given.login, given.password) == (b"post", b"p@ss word"), handled=False))
    controller.start()
    box.url = settings.values["smtp_url"] = f"smtp://post:p%40ss%20word@127.0.0.1:{controller.port}"
    yield box
    controller.stop()


def work():
    """Run what waits in the server's own queue once; the state of the last job."""
    with acting(system(HOST_TENANT)):
        for job in queue.claim(executor.OWN, "test", batch=100):
            executor.run(job)
        return db.one(dict, "SELECT state, error, payload FROM jobs WHERE tenant_id = :tenant ORDER BY id DESC LIMIT 1")


def letters():
    return db.value("SELECT count(*) FROM letters")


def test_a_letter_arrives_as_text_and_html(mailbox):
    mail.send("ann@example.com", "Grüße", "Hello Ann,\n\nhttps://example.com/x\n", "<p>Hello <b>Ann</b></p>")
    assert work()["state"] == "completed"
    message, = mailbox.messages
    assert mailbox.recipients == [["ann@example.com"]]
    assert message["To"] == "ann@example.com" and message["Subject"] == "Grüße" and message["Message-ID"] and message["Date"]
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == "Hello Ann,\n\nhttps://example.com/x\n" and html.get_content_type() == "text/html"
    assert letters() == 0, "a letter that is sent is forgotten"


def test_a_mail_server_that_is_busy_is_asked_again(mailbox):
    mailbox.answers = ["451 4.3.0 Try again later"]
    mail.send("ann@example.com", "Hello", "text")
    job = work()
    assert job["state"] == "delayed" and "451" in job["error"] and letters() == 1
    with acting(system(HOST_TENANT)):
        db.write(lambda: db.run("UPDATE jobs SET state = 'waiting', run_at = NULL WHERE tenant_id = :tenant"))
    assert work()["state"] == "completed" and len(mailbox.messages) == 1 and letters() == 0


def test_a_refused_recipient_is_refused_for_good_and_not_named(mailbox):
    mailbox.refused = {"nobody@example.com"}
    mail.send("nobody@example.com", "Hello", "text")
    job = work()
    assert job["state"] == "failed" and "550" in job["error"]
    assert "nobody@example.com" not in job["error"] + job["payload"]


@pytest.mark.parametrize("url, said", [
    ("smtp://post:wrong@127.0.0.1:{port}", "log-in"),
    ("smtp://127.0.0.1:1", "did not take it"),
    ("http://127.0.0.1", "smtp_url"),
])
def test_a_mail_server_that_cannot_be_used_is_named(mailbox, url, said):
    settings.values["smtp_url"] = url.replace("{port}", mailbox.url.rpartition(":")[2])
    mail.send("ann@example.com", "Hello", "text")
    job = work()
    assert said in job["error"] and letters() == 1 and not mailbox.messages
    assert job["state"] == ("failed" if url.startswith("http") else "delayed")


@pytest.mark.parametrize("subject, to", [("Hello\r\nBcc: eve@example.com", "ann@example.com"), ("Hello", "ann@example.com\nBcc: eve@example.com")])
def test_a_header_cannot_bring_another(mailbox, subject, to):
    mail.send(to, subject, "text")
    assert work()["state"] == "failed" and not mailbox.messages


def test_without_a_mail_server_letters_are_files_for_their_owner_alone(data):
    mail.send("ann@example.com", "Hello", "Your link: https://example.com/x\n")
    assert work()["state"] == "completed"
    file, = (data / "outbox").iterdir()
    assert file.suffix == ".eml" and stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700
    assert "https://example.com/x" in email.message_from_bytes(file.read_bytes(), policy=default).get_content()


def test_a_letter_to_nobody_goes_nowhere(mailbox):
    mail.send("", "Hello", "text")
    assert work()["state"] == "completed" and not mailbox.messages and letters() == 0


def test_a_letter_of_a_write_that_fails_is_never_sent(mailbox):
    @writes
    def failing():
        mail.send("ann@example.com", "Hello", "text")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        failing()
    assert letters() == 0 and work() is None


def test_mail_encrypts_or_keeps_its_password(mailbox, monkeypatch):
    from plugins.mail import post
    monkeypatch.setattr(post, "LOOPBACK", ())
    mail.send("ann@example.com", "Hello", "text")
    assert "no encryption" in work()["error"] and not mailbox.messages
