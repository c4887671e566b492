"""Webhooks: what is refused, what is signed, whose they are."""
import pytest
from standardwebhooks.webhooks import Webhook as Library

from orkosi import acting, system
from plugins import webhooks
from plugins.vault import canaries
from plugins.webhooks import sending

URL = "https://example.com/hook"


@pytest.mark.parametrize("body, field", [
    ({"url": "http://example.com/"}, "url"), ({"url": "https://u:p@example.com/"}, "url"), ({"url": "https://example.com/#a"}, "url"),
    ({"url": "https://example.com:0/"}, "url"), ({"url": "https://example.com/" + "x" * 2000}, "url"), ({"url": "https://127.0.0.1/"}, "url"),
    ({"url": "https://[::ffff:169.254.169.254]/"}, "url"), ({"url": URL, "types": ["task"]}, "types"), ({"url": URL, "typos": []}, "typos"),
])
def test_what_is_refused_names_its_field(client, body, field):
    answer = client.post("/webhooks", body)
    assert answer.status == 400
    assert field in answer.error["message"] or field in str(answer.error["details"])


def test_a_secret_is_shown_once_and_rotated_with_a_grace(client):
    made = client.post("/webhooks", {"url": URL, "types": ["task.*"]}).data
    assert made["secret"].startswith("whsec_")
    assert "secret" not in client.get(f"/webhooks/{made['id']}").data
    fresh = client.patch(f"/webhooks/{made['id']}", {"rotate_secret": True}).data["secret"]
    assert fresh != made["secret"]
    assert client.patch(f"/webhooks/{made['id']}", {"description": "x"}).data["secret"] is None
    with webhooks_of(1):
        keys = webhooks.secrets_of(made["id"])
    moment = int(sending.time.time())
    headers = {"webhook-id": "m", "webhook-timestamp": str(moment), "webhook-signature": sending.signed(keys, "m", moment, b"{}")}
    for secret in (made["secret"], fresh):
        assert Library(secret).verify(b"{}", headers) == {}


def webhooks_of(tenant):
    return acting(system(tenant))


def test_an_event_becomes_one_delivery_and_events_of_webhooks_none(client):
    id = client.post("/webhooks", {"url": URL}).data["id"]
    task = client.post("/tasks", {"title": "One", "assignee": "nobody"}).data["id"]
    with webhooks_of(1):
        sending.advance(id)
        sending.advance(id)
    found = [one["type"] for one in client.get(f"/webhooks/{id}/deliveries").data]
    assert found.count("task.created") == 1 and not any(type.startswith("webhook.") for type in found), task
    assert client.get(f"/webhooks/{id}/deliveries?status=dead").data == []


def test_a_secret_is_blotted_out_of_logs_and_texts(client):
    secret = client.post("/webhooks", {"url": URL}).data["secret"]
    client.post("/logs", {"agent": "felix", "message": f"signing with {secret} now", "level": "info"})
    task = client.post("/tasks", {"title": "Look", "description": f"It is {secret}"}).data
    assert task["description"] == "It is whsec_[secret 1 of webhook 1]"
    assert secret[6:] not in client.get("/logs").body.decode() and "[secret 1 of webhook 1]" in client.get("/logs").body.decode()
    assert secret[6:] not in canaries.blotted_text(f"an error with {secret}")
    fresh = client.patch("/webhooks/1", {"rotate_secret": True}).data["secret"]
    assert [canaries.blotted_text(one) for one in (secret, fresh)] == ["whsec_[secret 1 of webhook 1]", "whsec_[secret 2 of webhook 1]"]
    client.delete("/webhooks/1")
    assert canaries.blotted_text(fresh) == fresh
