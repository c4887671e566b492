"""Mail, by a real SMTP server on loopback: what arrives, what is tried again, what is refused."""
import datetime
import email
import os
import re
import socket
import ssl
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


def test_no_row_ever_has_the_token_of_a_link(client, as_, anonymous, data):
    """Whoever can read the table, or a copy of it, can follow no link."""
    as_("ann")
    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "new@example.com"})
    anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    as_("bob").post("/auth/change-email", {"email": "bob.new@example.com", "password": "correct horse"})
    rows = db.all(dict, "SELECT * FROM letters")
    assert len(rows) == 3 and all("ork_" not in f"{row['text']}{row['html']}" and row["wanted"] for row in rows)
    assert not [row for row in db.all(dict, "SELECT payload, result FROM jobs") if "ork_" in str(row)]
    work()
    links = sorted(re.findall(r"/(invite|reset|verify)/ork_(\w{3})_\w{38}", "".join(file.read_text() for file in (data / "outbox").iterdir())))
    assert {kind for kind, _ in links} == {"invite", "reset", "verify"}


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


@pytest.mark.parametrize("greeting", ["Hello", "Grüß Gott", "你好"])
def test_a_long_link_stands_whole_in_the_file(data, greeting):
    link = "https://" + "a-long-name." * 8 + "example.com/reset/ork_rst_" + "0" * 38
    mail.send("ann@example.com", greeting, f"{greeting},\n\n  {link}\n")
    assert work()["state"] == "completed"
    raw = next((data / "outbox").iterdir()).read_text()
    assert f"{greeting},\n\n  {link}\n" in raw.replace("\r", "")


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


# ── encryption ──


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """A certificate for localhost that this process trusts: (certificate, key) files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    moment = datetime.datetime.now(datetime.UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(moment - datetime.timedelta(days=1)).not_valid_after(moment + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    return files


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("host, arrives", [("localhost", True), ("127.0.0.1", False)], ids=["its name", "another name"])
def test_a_letter_goes_encrypted_to_a_server_that_proves_its_name(data, certificate, scheme, host, arrives):
    box, context = Mailbox(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    how = {"ssl_context": context} if scheme == "smtps" else {"tls_context": context, "require_starttls": True}
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), **how)
    controller.ready_timeout = 10
    controller.start()
    try:
        settings.values["smtp_url"] = f"{scheme}://{host}:{controller.port}"
        mail.send("ann@example.com", "Hello", "text")
        job = work()
    finally:
        controller.stop()
    assert (job["state"], len(box.messages)) == (("completed", 1) if arrives else ("delayed", 0)), job["error"]


# ── what mail is for ──


def test_invitation_and_reset_are_completed_by_the_links_in_the_mail(mailbox, client, anonymous):
    def link():
        assert work()["state"] == "completed"
        text = mailbox.messages[-1].get_body(("plain",)).get_content()
        assert all(len(line) < 200 and line.isprintable() for line in text.splitlines()), "a terminal shows it"
        return re.search(r"https?://[^/]+(\S+)", text)[1]

    org = client.post("/organizations", {"name": "Acme"}).data["id"]
    client.post(f"/organizations/{org}/invites", {"email": "ann@example.com", "role": "admin"})
    path = link()
    assert anonymous.request("GET", path, root="/").headers["Content-Type"].startswith("text/html")
    token = path.rpartition("/")[2]
    assert anonymous.post("/auth/invitation", {"token": token}).data["email"] == "ann@example.com"
    anonymous.post("/auth/register", {"username": "ann", "email": "ann@example.com", "password": "correct horse", "terms_accepted": True,
                                      "privacy_accepted": True, "invite_code": token})
    assert client.get(f"/organizations/{org}/members").data[1]["role"] == "admin"

    anonymous.post("/auth/forgot-password", {"email": "ann@example.com"})
    path = link()
    assert anonymous.request("GET", path, root="/").status == 200
    assert anonymous.post("/auth/reset-password", {"token": path.rpartition("/")[2], "password": "another horse"}).status == 200
    assert anonymous.post("/auth/login", {"email": "ann@example.com", "password": "another horse"}).status == 200
