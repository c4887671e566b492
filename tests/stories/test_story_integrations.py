"""Stories of integrations: set up, tried against a real HTTP server on loopback, and used for what they are there for."""
import contextlib
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import Like

from orkosi import acting, db, settings, system
from plugins import notifications, queue
from plugins.integrations import catalogue
from plugins.integrations.catalogue import CATALOGUE
from plugins.queue import executor

ANSWERS = {  # path → (what must come along, what is answered)
    "/v1/balance": (("Authorization", "Bearer sk_good"), {"object": "balance", "livemode": False}),
    "/user": (("Authorization", "Bearer ghp_good"), {"login": "octocat"}),
    "/bot123:good/getMe": (None, {"ok": True, "result": {"username": "orkosi_bot"}}),
    "/v1/models": (None, {"data": [{"id": "a"}, {"id": "b"}]}),
    "/v1beta/models": (("x-goog-api-key", "g_good"), {"models": [{"name": "x"}]}),
    "/hook": (None, {}), "/notify": (None, {}), "/bot123:good/sendMessage": (None, {"ok": True})}


class Outside(BaseHTTPRequestHandler):
    """A server that answers as the others do; what it was sent stands in `heard`."""
    heard: list = []

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        Outside.heard.append((self.command, self.path, dict(self.headers), body))
        if self.path == "/redirect/v1/models":
            self.send_response(302)
            self.send_header("Location", "/v1/models")
            self.end_headers()
            return
        if self.path == "/drip/v1/models":
            self.send_response(200)
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x"), self.wfile.flush()
                    time.sleep(0.1)  # the drip itself
            return
        if self.path == "/deep/v1/models":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[" * 500_000)
            return
        needed, told = ANSWERS.get(self.path, (("x", "never"), None))
        good = not needed or self.headers.get(needed[0]) == needed[1]
        raw = json.dumps(told if good else {"error": "secret of ours"}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for one in CATALOGUE.values():
        for field in one.fields:
            if field.env:
                monkeypatch.delenv(field.env, raising=False)


@pytest.fixture
def outside(monkeypatch):
    monkeypatch.setattr(settings, "integrations_private", True)
    Outside.heard = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Outside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def of(client, id):
    return next(one for one in client.get("/integrations").data if one["id"] == id)


@pytest.mark.story("GET /api/integrations")
def test_the_catalogue_says_what_is_set(client, monkeypatch, outside):
    found = client.get("/integrations").json["data"]
    assert [one["id"] for one in found] == ["stripe", "github", "smtp", "slack", "telegram", "anthropic", "openai", "google", "cloudflare-tunnel", "litestream", "webhook"]
    for one in found:
        there = CATALOGUE[one["id"]]
        assert one == {"id": there.id, "name": there.name, "category": there.category, "description": there.description, "status": "not_configured", "source": None, "detail": None,
                       "checked_at": None, "fields": [{"name": field.name, "label": field.label, "type": field.type, "secret": field.type == "secret", "required": field.required,
                                                       "set": False} for field in there.fields]}
    client.post("/integrations/telegram/configure", {"fields": {"token": "t"}})
    assert [one["set"] for one in of(client, "telegram")["fields"]] == [True, False, False] and of(client, "telegram")["status"] == "not_configured"
    client.post("/integrations/telegram/configure", {"fields": {"chat_id": "7"}})
    assert (of(client, "telegram")["status"], of(client, "telegram")["source"]) == ("configured", "vault")
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_good")
    assert (of(client, "github")["status"], of(client, "github")["source"]) == ("configured", "environment") and "ghp_good" not in str(client.get("/integrations").json)
    client.post("/integrations/github/configure", {"fields": {"base_url": outside}}), client.get("/integrations/github/status")
    assert of(client, "github") == client.get("/integrations/github/status").data and of(client, "github")["detail"] == "signed in as octocat"


@pytest.mark.story("POST /api/integrations/{id}/configure")
def test_what_is_saved_and_what_is_refused(client):
    made = client.post("/integrations/stripe/configure", {"fields": {"key": "sk_secret_value"}})
    assert made.status == 200 and made.json == {"data": of(client, "stripe")} and made.data["status"] == "configured" and made.data["source"] == "vault"
    assert {one["name"]: one["set"] for one in made.data["fields"]} == {"key": True, "webhook_secret": False, "base_url": False}
    assert client.get("/credentials/ORKOSI_STRIPE_KEY").data["value"] == "sk_secret_value"
    assert client.post("/integrations/stripe/configure", {}).data == made.data == client.post("/integrations/stripe/configure", {"fields": {}}).data
    assert client.post("/integrations/stripe/configure", {"fields": {"base_url": "http://x.example"}}).data["fields"][2]["set"] is True
    for body, field in (({"nonsense": "x"}, "nonsense"), ({"key": ""}, "key"), ({"key": 5}, "key"), ({"key": "a\nb"}, "key"), ({"key": "x" * 9000}, "key"), ([], "fields"),
                        ({"webhook_secret": "ok", "key": None}, "key")):
        said = client.post("/integrations/stripe/configure", {"fields": body})
        assert said.status == 400 and field in said.error["message"], body
    assert client.get("/credentials/ORKOSI_STRIPE_KEY").data["version"] == 1 and of(client, "stripe")["fields"][1]["set"] is False, "nothing is half-done"
    assert client.post("/integrations/nothing/configure", {"fields": {}}).status == 404 == client.get("/integrations/nothing/status").status
    assert "sk_secret_value" not in str(db.all(dict, "SELECT * FROM integrations")) + str(client.get("/activity-log").data)


@pytest.mark.story("GET /api/integrations/{id}/status")
@pytest.mark.parametrize("id, good, bad, said", [
    ("stripe", {"key": "sk_good"}, {"key": "sk_bad"}, "test mode"), ("github", {"token": "ghp_good"}, {"token": "ghp_bad"}, "signed in as octocat"),
    ("telegram", {"token": "123:good", "chat_id": "7"}, {"token": "123:bad", "chat_id": "7"}, "signed in as orkosi_bot"), ("openai", {"key": "any"}, None, "2 models"),
    ("anthropic", {"key": "any"}, None, "2 models"), ("google", {"key": "g_good"}, {"key": "g_bad"}, "1 models")])
def test_it_is_really_tried_and_at_most_once_a_minute(client, outside, lately, id, good, bad, said):
    assert client.get(f"/integrations/{id}/status").data["status"] == "not_configured" and not Outside.heard
    if bad:
        client.post(f"/integrations/{id}/configure", {"fields": bad | {"base_url": outside}})
        failing = client.get(f"/integrations/{id}/status").data
        assert failing["status"] == "failing" and failing["detail"] == "it answered 401: the key is not accepted" and not any(value in str(failing) for value in bad.values() if len(value) > 3)
    client.post(f"/integrations/{id}/configure", {"fields": good | {"base_url": outside}})
    asked = len(Outside.heard)
    found = client.get(f"/integrations/{id}/status")
    assert found.status == 200 and found.data == of(client, id) and (found.data["status"], found.data["detail"], found.data["checked_at"]) == ("verified", said, lately)
    assert client.get(f"/integrations/{id}/status").data == found.data and len(Outside.heard) == asked + 1
    db.write(lambda: db.run("UPDATE integration_checks SET checked_at = '2026-11-02T10:00:00.000Z'"))
    assert client.get(f"/integrations/{id}/status").data["checked_at"] == lately and len(Outside.heard) == asked + 2


def test_where_it_may_not_go(client, outside, monkeypatch):
    client.post("/integrations/openai/configure", {"fields": {"key": "any", "base_url": outside + "/redirect"}})
    assert "it answered 302" in client.get("/integrations/openai/status").data["detail"] and len(Outside.heard) == 1, "no redirect is followed"
    monkeypatch.setattr(settings, "integrations_private", False)
    for address in (outside, "http://localhost:1", "http://169.254.169.254", "http://10.0.0.1", "http://[::1]:1", "file:///etc/passwd", "gopher://x"):
        client.post("/integrations/openai/configure", {"fields": {"base_url": address}})
        found = client.get("/integrations/openai/status").data
        assert found["status"] == "failing" and ("private address" in found["detail"] or "must begin with http" in found["detail"]), address
    assert len(Outside.heard) == 1


def test_a_server_that_does_not_answer_is_said(client, monkeypatch):
    monkeypatch.setattr(settings, "integrations_private", True)
    client.post("/integrations/openai/configure", {"fields": {"key": "any", "base_url": "http://127.0.0.1:1"}})
    assert client.get("/integrations/openai/status").data["detail"] == Like("it does not answer: .*refused.*")
    for id in ("cloudflare-tunnel", "litestream"):
        assert client.get(f"/integrations/{id}/status").data["status"] in ("verified", "failing")


def test_whoever_drips_or_answers_nonsense_holds_nothing_up(client, outside, monkeypatch):
    monkeypatch.setattr(catalogue, "SECONDS", 1.0)
    for way, said in (("drip", "no whole answer within 1 s"), ("deep", "something else than a list of models")):
        client.post("/integrations/openai/configure", {"fields": {"key": "any", "base_url": f"{outside}/{way}"}})
        began = time.monotonic()
        found = client.get("/integrations/openai/status").data
        assert found["status"] == "failing" and time.monotonic() - began < 3, (way, found)
        assert said in found["detail"], (way, found)


def test_a_key_with_a_line_break_goes_nowhere(client, outside, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any\r\nX-Other: 1")
    client.post("/integrations/openai/configure", {"fields": {"base_url": outside}})
    assert client.get("/integrations/openai/status").data["status"] == "failing" and not Outside.heard


def test_errors_are_told_outside_once_each(client, outside):
    client.post("/integrations/slack/configure", {"fields": {"webhook_url": outside + "/hook"}})
    client.post("/integrations/telegram/configure", {"fields": {"token": "123:good", "chat_id": "7", "base_url": outside}})
    client.post("/integrations/webhook/configure", {"fields": {"url": outside + "/notify", "secret": "s3cret"}})
    with acting(system()):
        one = notifications.notify("the roof leaks", "badly", type="error", source="house", link="/api/tasks/1")
        notifications.notify("all is well", "indeed", type="info")
        for _ in range(2):
            for job in queue.claim(executor.OWN, "test", batch=100):
                executor.run(job)
    told = {(path, json.loads(body).get("text") or json.loads(body).get("title")) for _, path, _, body in Outside.heard}
    assert told == {("/hook", "the roof leaks\nbadly"), ("/notify", "the roof leaks"), ("/bot123:good/sendMessage", "the roof leaks\nbadly")} and len(Outside.heard) == 3
    _, _, headers, body = next(one for one in Outside.heard if b'"title"' in one[3])
    assert json.loads(body) == {"id": one.id, "type": "error", "title": "the roof leaks", "message": "badly", "source": "house", "link": "/api/tasks/1", "created_at": one.created_at}
    moment, signed = headers["X-Orkosi-Signature"].split(",")
    assert signed == "v1=" + hmac.new(b"s3cret", moment[2:].encode() + b"." + body, hashlib.sha256).hexdigest()
