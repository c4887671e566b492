"""The post: a letter as a message, and handing it in by SMTP.

Surprise: what a mail server says is repeated without the address, for job errors are kept. A wrong
password is worth a retry (an operator can mend it); a refused recipient is not.
"""
import contextlib
import errno
import os
import re
import socket
import ssl
import sys
from datetime import datetime
from email.utils import format_datetime, parseaddr
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orkosi import Invalid, Unavailable, Unprocessable
from plugins.mail import Letter

if TYPE_CHECKING:
    import smtplib  # imported when first used, as email's policies are: they take 2 MB, and not every server sends mail

PATIENCE = 30.0
MYSELF = socket.gethostname().encode("ascii", "ignore").decode() or "localhost"  # not getfqdn: on a Mac, that asks the network for half a minute
MAC_HINT = "; on a Mac, see System Settings, Privacy & Security, Local Network" if sys.platform == "darwin" else ""
SYSTEM_CERTIFICATES = "/etc/ssl/cert.pem"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def composed(letter: Letter, sender: str) -> bytes:
    """`letter` as a message: plain text, and with `html` both. Unprocessable where a header would take in another."""
    from email.message import EmailMessage
    from email.policy import SMTP
    message = EmailMessage(policy=SMTP)
    domain = parseaddr(sender)[1].partition("@")[2] or "localhost"
    try:
        message["From"], message["To"], message["Subject"] = sender, letter.email, letter.subject
    except ValueError as error:
        raise Unprocessable(f"A header of letter {letter.id} is not acceptable: {error}") from None
    message["Date"] = format_datetime(datetime.fromisoformat(letter.created_at))
    message["Message-ID"] = f"<{letter.id}.{re.sub(r'[^0-9]', '', letter.created_at)}@{domain}>"  # the same in every attempt
    message["Auto-Submitted"] = "auto-generated"
    # As it is: quoted-printable would break long links, for whoever reads the .eml in a terminal.
    message.set_content(letter.text, cte="7bit" if letter.text.isascii() else "8bit")
    if letter.html:
        message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    return message.as_bytes()


def hand_in(message: bytes, to: str, url: str) -> None:
    """Give a message to the mail server. Unavailable where later may help, Unprocessable where it is refused for good."""
    import smtplib
    try:
        with contextlib.closing(_connected(url)) as server:
            server.sendmail(parseaddr(_sender(message))[1], [to], message)
            with contextlib.suppress(smtplib.SMTPException):
                server.quit()
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise _refused(code, said, to) from None
    except smtplib.SMTPAuthenticationError as error:
        raise Unavailable(f"The mail server refused the log-in ({error.smtp_code}); mend the setting smtp_url") from None
    except smtplib.SMTPResponseException as error:
        raise _refused(error.smtp_code, error.smtp_error, to) from None
    except (smtplib.SMTPException, OSError) as error:
        hint = MAC_HINT if isinstance(error, OSError) and error.errno == errno.EHOSTUNREACH else ""
        raise Unavailable(f"The mail server did not take it: {type(error).__name__}: {_without(str(error), to)}{hint}") from None


def _connected(url: str) -> "smtplib.SMTP":
    import smtplib
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise Invalid("smtp_url: Write smtp://user:password@host:port, or smtps://…")
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and os.path.exists(SYSTEM_CERTIFICATES):
        context.load_verify_locations(SYSTEM_CERTIFICATES)  # Python from python.org knows no authority until somebody installs some
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(parts.hostname, parts.port or 465, local_hostname=MYSELF, timeout=PATIENCE, context=context)
    else:
        server = smtplib.SMTP(parts.hostname, parts.port or 25, local_hostname=MYSELF, timeout=PATIENCE)
    with contextlib.ExitStack() as failing:
        failing.callback(server.close)
        server.ehlo()
        if parts.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
        elif parts.scheme == "smtp" and parts.username and parts.hostname not in LOOPBACK:
            raise Unavailable("The mail server offers no encryption, so the password stays here; use smtps://")
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        failing.pop_all()
    return server


def _sender(message: bytes) -> str:
    from email import message_from_bytes
    from email.policy import SMTP
    return str(message_from_bytes(message, policy=SMTP)["From"])


def _refused(code: int, said: bytes | str, to: str) -> Unprocessable | Unavailable:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    problem = Unprocessable if code >= 500 else Unavailable
    return problem(f"The mail server said {code} {_without(text, to)}")


def _without(text: str, address: str) -> str:
    return re.sub(re.escape(address), "…", text, flags=re.I)[:300]
