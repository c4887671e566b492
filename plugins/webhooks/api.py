"""The wire of webhooks: /webhooks. A secret is in the answer that makes it, and in none after that."""
from typing import Annotated, Literal

from orkosi import UNSET, Deleted, Meta, Page, Struct, UnsetType, may
from plugins import webhooks
from plugins.webhooks import Delivery, DeliveryQuery, Status, Webhook, plugin

READ, WRITE = may("editor", "webhooks:read"), may("admin", "webhooks:write")

Url = Annotated[str, Meta(min_length=1, max_length=2000, description="https://…; without user, password and fragment")]
Type = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]*\.([a-z][a-z0-9_]*|\*)\Z", max_length=100,
                           description="Such as task.done, or task.* for all of tasks")]
Types = Annotated[list[Type], Meta(max_length=50, description="None is all")]
About = Annotated[str, Meta(max_length=200)]


class NewWebhook(Struct, forbid_unknown_fields=True):
    url: Url
    types: Types = []
    description: About = ""


class WebhookPatch(Struct, forbid_unknown_fields=True):
    """`rotate_secret`: answer a new secret, beside which the old one signs for the hours of the setting webhooks_grace_hours."""
    url: Url | UnsetType = UNSET
    types: Types | UnsetType = UNSET
    description: About | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    rotate_secret: bool = False


class SeenWebhook(Struct):
    """A webhook. `paused_for`: it was `asked`, it is `failing` for three days, or it said that it is `gone` (410)."""
    id: int
    url: str
    types: list[str]
    description: str
    status: Status
    paused_for: Literal["asked", "failing", "gone"] | None
    failing_since: str | None
    last_sent_at: str | None
    last_response: int | None
    created_at: str
    updated_at: str


class WebhookWithSecret(SeenWebhook, kw_only=True):
    """A webhook, and its secret where it was just made."""
    secret: str | None


def seen(one: Webhook) -> SeenWebhook:
    return SeenWebhook(**{name: getattr(one, name) for name in SeenWebhook.__struct_fields__})


def with_secret(one: Webhook, secret: str | None) -> WebhookWithSecret:
    return WebhookWithSecret(secret=secret, **{name: getattr(one, name) for name in SeenWebhook.__struct_fields__})


@plugin.get("/api/webhooks", auth=READ)
def index() -> list[SeenWebhook]:
    """List webhooks

    Oldest first, with how each one stands; never with a secret."""
    return [seen(one) for one in webhooks.everything()]


@plugin.post("/api/webhooks", auth=WRITE, status=201, raises=(400, 409, 503))
def create(body: NewWebhook) -> WebhookWithSecret:
    """Add a webhook

    It is told of what happens from now on. Its secret is in this answer alone."""
    return with_secret(*webhooks.create(body.url, body.types, body.description))


@plugin.get("/api/webhooks/{id}", auth=READ, raises=(404,))
def show(id: int) -> SeenWebhook:
    """Show a webhook

    Without its secret."""
    return seen(webhooks.find(id))


@plugin.patch("/api/webhooks/{id}", auth=WRITE, raises=(400, 404, 503))
def update(id: int, body: WebhookPatch) -> WebhookWithSecret:
    """Change, pause or resume a webhook, or rotate its secret

    A paused one misses nothing: what happened meanwhile is sent when it is resumed. `secret` is set where it was rotated."""
    values = {name: value for name in ("url", "types", "description", "status") if (value := getattr(body, name)) is not UNSET}
    return with_secret(*webhooks.change(id, values, body.rotate_secret))


@plugin.delete("/api/webhooks/{id}", auth=WRITE, raises=(404,))
def delete(id: int) -> Deleted:
    """Delete a webhook

    Its deliveries go with it."""
    webhooks.delete(id)
    return Deleted(id)


@plugin.post("/api/webhooks/{id}/test", auth=WRITE, status=201, raises=(404, 409))
def test(id: int) -> Delivery:
    """Send a webhook a test

    An event `webhook.test`, sent as all others are; the answer does not wait for it, its delivery tells."""
    return webhooks.test(id)


@plugin.get("/api/webhooks/{id}/deliveries", auth=READ, raises=(404,))
def deliveries(id: int, query: DeliveryQuery) -> Page[Delivery]:
    """List a webhook's deliveries

    Newest first, each with what its last attempt was answered; kept for 14 days."""
    return webhooks.page(id, query)


@plugin.post("/api/webhooks/{id}/deliveries/{deliveryId}/replay", auth=WRITE, status=202, raises=(404, 409))
def replay(id: int, delivery_id: int) -> Delivery:
    """Send a delivery again

    One that is delivered or dead, with the same `webhook-id`."""
    return webhooks.replay(id, delivery_id)
