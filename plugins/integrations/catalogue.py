"""The catalogue of integrations: data, and how each is tried.

Surprise: a call goes only where the catalogue says, or where a `base_url` does, which an administrator gave; a private address is refused,
unless the setting `integrations_private` allows it. No redirect is followed, and no proxy asked.
"""
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from orkosi import Struct, clean, settings
from plugins import outbound

SECONDS = 5.0
MOST = 1 << 20
Values = dict[str, str]


class Failing(Exception):
    """It was tried, and does not work; the text says why, without any secret."""


class Field(Struct):
    """A value that an integration takes; `env` is the variable that wins over what is saved."""
    name: str
    label: str
    type: Literal["text", "secret", "url", "number"] = "text"
    required: bool = True
    env: str = ""

    @property
    def secret(self) -> bool:
        """Whether it is kept in the vault, and never shown."""
        return self.type == "secret"


class Integration(NamedTuple):
    """Something outside that Orkosi works with; `tried` says in words what it found, or raises Failing."""
    id: str
    name: str
    category: str
    description: str
    fields: tuple[Field, ...]
    tried: Callable[[Values], str]


# ── calling ──


def require_public(url: str) -> None:
    """Failing where an address is none of http, or is of this machine or its network, and that is not allowed."""
    with _told():
        place = outbound.split(url, private=settings.integrations_private, plain=True)
        outbound.resolved(place, time.monotonic() + SECONDS, private=settings.integrations_private, plain=True)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except outbound.Unreached as error:
        allowed = "; allow that with the setting integrations_private" if "private address" in str(error) else ""
        raise Failing(f"{error}{allowed}") from None


def call(method: str, url: str, headers: dict[str, str] | None = None, body: Any = None) -> Any:
    """What an address answers within 5 s in all, as JSON where it is that. Failing."""
    usual = {"Accept": "application/json", "Content-Type": "application/json"}
    with _told():
        answer = outbound.request(method, url, b"" if body is None else json.dumps(body).encode(), usual | (headers or {}),
                                  private=settings.integrations_private, plain=True, seconds=SECONDS, most=MOST)
    if not 200 <= answer.status < 300:
        words = {401: "the key is not accepted", 403: "the key may not do that", 404: "there is no such address", 429: "too many requests"}
        raise Failing(f"it answered {answer.status}: {words.get(answer.status, 'it does not work')}")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return answer.body.decode(errors="replace")


def base(values: Values, usual: str) -> str:
    """Where an API is."""
    return (values.get("base_url") or usual).rstrip("/")


def _bearer(values: Values, name: str = "key") -> dict[str, str]:
    return {"Authorization": f"Bearer {values[name]}"}


# ── trying each ──


def stripe(values: Values) -> str:
    """Ask for the balance."""
    found = call("GET", base(values, "https://api.stripe.com") + "/v1/balance", _bearer(values))
    return "live" if isinstance(found, dict) and found.get("livemode") else "test mode"


def github(values: Values) -> str:
    """Ask who the token is."""
    return f"signed in as {_word(call('GET', base(values, 'https://api.github.com') + '/user', _bearer(values, 'token')), 'login')}"


def slack(values: Values) -> str:
    """A webhook cannot be asked without telling: its address is looked at."""
    require_public(values["webhook_url"])
    return "its address is good; the next notification tries it"


def telegram(values: Values) -> str:
    """Ask who the bot is."""
    found = call("GET", f"{base(values, 'https://api.telegram.org')}/bot{values['token']}/getMe")
    return f"signed in as {_word(found.get('result') if isinstance(found, dict) else None, 'username')}"


def anthropic(values: Values) -> str:
    """Ask for the models."""
    headers = {"x-api-key": values["key"], "anthropic-version": "2023-06-01"}
    return _models(call("GET", base(values, "https://api.anthropic.com") + "/v1/models", headers))


def openai(values: Values) -> str:
    """Ask for the models."""
    return _models(call("GET", base(values, "https://api.openai.com") + "/v1/models", _bearer(values)))


def google(values: Values) -> str:
    """Ask for the models; the key goes in a header, for an address is logged."""
    there = base(values, "https://generativelanguage.googleapis.com")
    found = call("GET", there + "/v1beta/models", {"x-goog-api-key": values["key"]})
    return _models({"data": found.get("models", [])} if isinstance(found, dict) else found)


def smtp(values: Values) -> str:
    """Say hello to the mail server, and log in where a name is given."""
    import smtplib
    place = urlsplit(values["url"])
    if place.scheme not in ("smtp", "smtps") or not place.hostname:
        raise Failing("write smtp://user:password@host:port, or smtps://…")
    try:
        kind = smtplib.SMTP_SSL if place.scheme == "smtps" else smtplib.SMTP
        with kind(place.hostname, place.port or (465 if place.scheme == "smtps" else 25), timeout=SECONDS) as server:
            server.ehlo()
            if place.username:
                if place.scheme == "smtp" and server.has_extn("starttls"):
                    server.starttls()
                server.login(place.username, place.password or "")
    except (OSError, smtplib.SMTPException) as error:
        raise Failing(f"it does not take mail: {clean(type(error).__name__, 60)}") from None
    return "it takes mail"


def webhook(values: Values) -> str:
    """Its address is looked at."""
    require_public(values["url"])
    return "its address is good; the next notification tries it"


def cloudflare(values: Values) -> str:
    """Whether the program is there, and the tunnel's door is open."""
    if not shutil.which("cloudflared"):
        raise Failing("there is no cloudflared on the PATH; install it")
    return f"cloudflared is there{'' if settings.tunnel_port else ', and tunnel_port is not set'}"


def litestream(values: Values) -> str:
    """Whether the program is there."""
    if not shutil.which("litestream"):
        raise Failing("there is no litestream on the PATH; install it")
    return "litestream is there"


def _word(found: Any, name: str) -> str:
    return clean(str(found.get(name) if isinstance(found, dict) else "nobody"), 100)


def _models(found: Any) -> str:
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        raise Failing("it answered something else than a list of models")
    return f"{len(data)} models"


BASE = Field("base_url", "Another address of its API", "url", False)
CATALOGUE = {one.id: one for one in (
    Integration("stripe", "Stripe", "payments", "Customers pay", (Field("key", "Secret key", "secret", env="ORKOSI_STRIPE_SECRET_KEY"),
                Field("webhook_secret", "Signing secret of the webhook", "secret", False, "ORKOSI_STRIPE_WEBHOOK_SECRET"),
                Field("base_url", "Another address of its API", "url", False, "ORKOSI_STRIPE_API_BASE")), stripe),
    Integration("github", "GitHub", "code", "Code and backups", (Field("token", "Token", "secret", env="GITHUB_TOKEN"), BASE), github),
    Integration("smtp", "SMTP", "messages", "Mail is handed in",
                (Field("url", "smtp://user:password@host:port", "secret", env="ORKOSI_SMTP_URL"),), smtp),
    Integration("slack", "Slack", "messages", "Notifications in a channel",
                (Field("webhook_url", "Address of the incoming webhook", "secret", env="SLACK_WEBHOOK_URL"),), slack),
    Integration("telegram", "Telegram", "messages", "Notifications in a chat", (Field("token", "The bot's token", "secret", env="TELEGRAM_BOT_TOKEN"),
                Field("chat_id", "The chat's id", "text", env="TELEGRAM_CHAT_ID"), BASE), telegram),
    Integration("anthropic", "Anthropic", "models", "Claude",
                (Field("key", "API key", "secret", env="ANTHROPIC_API_KEY"), BASE), anthropic),
    Integration("openai", "OpenAI", "models", "GPT, and whatever speaks as it does",
                (Field("key", "API key", "secret", env="OPENAI_API_KEY"), BASE), openai),
    Integration("google", "Google", "models", "Gemini", (Field("key", "API key", "secret", env="GEMINI_API_KEY"), BASE), google),
    Integration("cloudflare-tunnel", "Cloudflare Tunnel", "network", "The public API from outside", (), cloudflare),
    Integration("litestream", "Litestream", "backups", "A copy of every write elsewhere", (), litestream),
    Integration("webhook", "Webhook", "messages", "Notifications as JSON to an address of yours",
                (Field("url", "Address", "url", env="ORKOSI_NOTIFY_URL"),
                 Field("secret", "Secret that signs what is sent", "secret", False)), webhook))}
