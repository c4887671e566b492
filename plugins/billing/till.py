"""The till: the one place that talks to Stripe.

Surprise: the library is imported when it is first needed, for that takes half a second; and nothing here is called inside a write, or in
a thread that others wait for. What Stripe answers is handed on as plain dictionaries, and what goes wrong as a problem in words: its own
texts stay in the log.
"""
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from orkosi import HOST_TENANT, Conflict, Invalid, PaymentDue, Unavailable, Unprocessable, across_tenants, acting, clean, db, settings, system
from plugins import integrations
from plugins.integrations.catalogue import CATALOGUE, Failing, base, require_public

from . import plugin

log = logging.getLogger("orkosi")
VERSION = "2026-10-28.endive"  # of Stripe's API, as the library knows it
TIMEOUT = (5.0, 10.0)          # seconds to connect, and to answer
TOLERANCE = 300                # seconds that an event's signature may be old, or ahead


class StripeNotConfigured(Unavailable):
    """There is no key for Stripe, or it is not accepted; the operator sets it up at POST /api/integrations/stripe/configure."""
    code = "stripe_not_configured"


class StripeUnavailable(Unavailable):
    """Stripe does not answer as it should right now; nothing was lost, try again."""
    code = "stripe_unavailable"


class StripeRefused(Unprocessable):
    """Stripe does not take this request; the log has its reason under the request id."""
    code = "stripe_refused"


class CardDeclined(PaymentDue):
    """The card was not charged; use another."""
    code = "card_declined"


class BadSignature(Invalid):
    """The event is not signed by Stripe, or was signed too long ago."""
    code = "bad_signature"


_generation = 0
_mine = threading.local()  # a client for each thread


@plugin.on("opened")
@plugin.on("integration.configured")
@plugin.on("credential.saved")
@plugin.on("credential.deleted")
def forget(event: str, subject: object, **facts: object) -> None:
    """Another key may hold from now on."""
    global _generation
    _generation += 1


@across_tenants
def configured() -> bool:
    """Whether there is a key; nothing is decrypted for that."""
    return bool(settings.stripe_secret_key) or bool(
        db.value("SELECT 1 FROM credentials WHERE tenant_id = :host AND key = 'ORKOSI_STRIPE_KEY'", host=HOST_TENANT))


def _values() -> dict[str, str]:
    with acting(system(HOST_TENANT)):
        return integrations.values(CATALOGUE["stripe"])


def _client() -> Any:
    if getattr(_mine, "generation", None) != _generation:
        import requests
        import stripe
        generation, given = _generation, _values()
        if not given.get("key"):
            raise StripeNotConfigured("Stripe is not set up here; ask the operator to configure the integration stripe")
        address = base(given, "https://api.stripe.com")
        if not settings.stripe_api_base:
            try:
                require_public(address)
            except Failing as error:
                raise StripeNotConfigured(f"Stripe cannot be called: {error}") from None
        session = requests.Session()
        session.trust_env = False  # no proxy and no netrc: the key goes to Stripe alone
        session.max_redirects = 0
        _mine.client = stripe.StripeClient(given["key"], base_addresses={"api": address}, max_network_retries=0, stripe_version=VERSION,
                                           http_client=stripe.RequestsClient(timeout=TIMEOUT, session=session))
        _mine.generation = generation
    return _mine.client


def ask(call: Callable[[Any], Any]) -> dict[str, Any]:
    """What Stripe answers a call, `ask(lambda v1: v1.customers.retrieve("cus_1"))`, as a plain dictionary.

    StripeNotConfigured, StripeUnavailable, StripeRefused, CardDeclined.
    """
    client = _client()
    import stripe
    try:
        found: dict[str, Any] = call(client.v1).to_dict()
        return found
    except stripe.CardError as error:
        raise CardDeclined(clean(error.user_message or "Your card was declined", 200), {"reason": clean(str(error.code or "declined"), 60)}) from None
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        log.error("Stripe does not accept the key: %s", clean(_said(error), 300))
        raise StripeNotConfigured("Stripe does not accept the key that is set up; the operator has to set another") from None
    except stripe.IdempotencyError as error:
        log.error("Stripe: %s", clean(_said(error), 300))
        raise Conflict("The same request is under way, or was another one before; try again in a minute") from None
    except stripe.InvalidRequestError as error:
        if error.http_status in (409, 429) or (error.http_status or 0) >= 500:
            raise _later(error) from None
        log.error("Stripe refuses a request: %s", clean(_said(error), 300))
        raise StripeRefused("Stripe does not take this request; the server's log says why", {"reason": clean(str(error.code or ""), 60)}) from None
    except stripe.StripeError as error:
        raise _later(error) from None


def _later(error: Any) -> StripeUnavailable:
    log.warning("Stripe: %s", clean(_said(error), 300))
    words = {429: "it has too many requests", None: "it does not answer"}.get(error.http_status, f"it answered {error.http_status}")
    return StripeUnavailable(f"Stripe is not to be had right now: {words}; try again", headers={"Retry-After": "5"})


def _said(error: Any) -> str:
    """What Stripe said, without keys: it quotes a part of the one that it refuses."""
    return re.sub(r"\b[sr]k_\w+|[*]{4,}\w*", "[key]", f"{type(error).__name__}: {error}")


def everything(call: Callable[[Any, dict[str, Any]], Any], most: int = 2000, **params: Any) -> list[dict[str, Any]]:
    """All of a list at Stripe, newest first, page by page."""
    found: list[dict[str, Any]] = []
    while len(found) < most:
        asked = {"limit": 100, **params} | ({"starting_after": found[-1]["id"]} if found else {})
        page = ask(lambda v1, asked=asked: call(v1, asked))  # type: ignore[misc]
        found += page["data"]
        if not page["has_more"] or not page["data"]:
            break
    return found


# ── what Stripe tells by itself ──

_signing: tuple[tuple[int, str], list[str]] = (-1, ""), []


def _signing_secrets() -> list[str]:
    """What Stripe signs with. Read once for each change: reading a secret is on record, and any stranger may knock at the webhook."""
    global _signing
    place = _generation, str(settings.stripe_webhook_secret)
    if _signing[0] != place:
        _signing = place, _values().get("webhook_secret", "").replace(",", " ").split()
    return _signing[1]


def verified(raw: bytes, signature: str) -> None:
    """See that an event is Stripe's, by any of the secrets that hold, and of now. StripeNotConfigured, BadSignature."""
    secrets = _signing_secrets()
    if not secrets:
        raise StripeNotConfigured("There is no signing secret for Stripe's events; set webhook_secret of the integration stripe")
    import stripe
    if not signature.isascii() or len(signature) > 4096:
        raise BadSignature("Stripe-Signature: is none of Stripe's")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(raw, signature, secret, TOLERANCE)
            break
        except (stripe.SignatureVerificationError, ValueError):
            continue
    else:
        raise BadSignature("Stripe-Signature: this was not signed with a secret that holds here, or too long ago")
    stamp = next(part[2:] for part in signature.split(",") if part.startswith("t="))  # the library looks at the past alone
    if int(stamp) > time.time() + TOLERANCE:
        raise BadSignature("Stripe-Signature: this was signed in the future; is the clock of this machine right?")
