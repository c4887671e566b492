"""The examples of the API's description: they are what this server answers, played from the first to the last.

`ORKOSI_WRITE_EXAMPLES=1` writes plugins/docs/examples.json anew; what stands there is then to be read as a user would.
"""
import json
import os
import re

from conftest import HOME, Client

import orkosi
from orkosi import acting, settings, system
from plugins import users
from plugins.docs import openapi

WRITE = os.environ.get("ORKOSI_WRITE_EXAMPLES") == "1"  # the data folder of a test has no such variables
FILE = HOME / "plugins/docs/examples.json"
# What is another each time, and what stands in its place.
CHANGING = [(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "2026-11-26T09:30:00.000Z"), (r"ork_(\w{3,4})_\w{38}", r"ork_\1_…"),
            (r'"lease_token": "[0-9a-f]{32}"', '"lease_token": "5f0c81a6e3b94d27a1f2c3d4e5f60718"'),
            (r"com\.orkosi\.\w+\.", "com.orkosi.1a2b3c4d."), (r'"next_after": "[^"]*"', '"next_after": "WzM5MDQ4ODU1NzQsNF0.QqQIPGtX6M…"'),
            (r'"heartbeat_age_seconds": [0-9.]+', '"heartbeat_age_seconds": 0.4'), (r'"waiting_seconds": [0-9.]+', '"waiting_seconds": 0.4'),
            (r'"oldest_waiting_seconds": [0-9.]+', '"oldest_waiting_seconds": 0.4')]

# The main job: (operation, path, body); one whose operation is in brackets is played, and no example.
PLAY = [
    ("POST /api/auth/setup", "/api/auth/setup", {"token": "SETUP", "username": "you", "email": "you@example.com", "password": "correct horse battery"}),
    ("POST /api/auth/login", "/api/auth/login", {"email": "you@example.com", "password": "correct horse battery"}),
    ("GET /api/auth/me", "/api/auth/me", None),
    ("POST /api/agents", "/api/agents", {"name": "felix", "display_name": "Felix", "role": "Shopkeeper", "interval_sec": 60}),
    ("GET /api/agents", "/api/agents", None),
    ("POST /api/agents/{name}/pause", "/api/agents/felix/pause", {"note": "until Monday"}),
    ("POST /api/agents/{name}/resume", "/api/agents/felix/resume", None),
    ("POST /api/tasks", "/api/tasks", {"title": "Check the shop", "description": "Every page, and the till.", "assignee": "felix", "priority": "P1"}),
    ("GET /api/tasks/{id}", "/api/tasks/1", None),
    ("PATCH /api/tasks/{id}", "/api/tasks/1", {"priority": "P0", "due_date": "2026-12-01"}),
    ("(another)", "/api/tasks", {"title": "Count the stock", "assignee": "felix", "blocked_by": [1]}),
    ("GET /api/tasks", "/api/tasks?status=todo&limit=1", None),
    ("(claimed by the agent)", "/api/task-queue/claim", {"worker_id": "felix:411", "queue_name": "agent:felix"}),
    ("POST /api/agent-runs", "/api/agent-runs", {"agent": "felix", "task_id": 1, "job_id": "job_1"}),
    ("POST /api/logs", "/api/logs", {"agent": "felix", "message": "the till is 3 cents short", "level": "warn"}),
    ("(done)", "/api/task-queue/job_1/complete", {"lease_token": "LEASE", "result": {"resolution": "All is well; the till is 3 cents short."}}),
    ("PATCH /api/agent-runs/{id}", "/api/agent-runs/1", {"status": "done", "exit_code": 0, "tokens_in": 1840, "tokens_out": 420, "cost_micros": 7600,
                                                            "duration_ms": 62000}),
    ("GET /api/agent-runs", "/api/agent-runs?agent=felix", None),
    ("GET /api/agents/{name}", "/api/agents/felix", None),
    ("GET /api/logs", "/api/logs?agent=felix&limit=1", None),
    ("GET /api/changelog", "/api/changelog", None),
    ("POST /api/task-queue/submit", "/api/task-queue/submit", {"task_type": "resize", "queue_name": "images", "payload": {"file": "a.png"}, "idempotency_key": "a.png"}),
    ("POST /api/task-queue/claim", "/api/task-queue/claim", {"worker_id": "w1", "queue_name": "images", "wait_seconds": 20}),
    ("POST /api/task-queue/{id}/heartbeat", "/api/task-queue/job_3/heartbeat", {"lease_token": "LEASE", "progress": {"percent": 40}}),
    ("POST /api/task-queue/{id}/release", "/api/task-queue/job_3/release", {"lease_token": "LEASE"}),
    ("(again)", "/api/task-queue/claim", {"worker_id": "w2", "queue_name": "images"}),
    ("POST /api/task-queue/{id}/fail", "/api/task-queue/job_3/fail", {"lease_token": "LEASE", "error": "The disk is full", "retry_in_seconds": 60}),
    ("(the next)", "/api/task-queue/submit", {"task_type": "resize", "queue_name": "images", "payload": {"file": "b.png"}}),
    ("(claimed)", "/api/task-queue/claim", {"worker_id": "w1", "queue_name": "images"}),
    ("POST /api/task-queue/{id}/complete", "/api/task-queue/job_4/complete", {"lease_token": "LEASE", "result": {"width": 640}, "claim_next": True}),
    ("GET /api/task-queue", "/api/task-queue?queue_name=images", None),
]


def play(application):
    """Every example, as this server answers it."""
    client, lease, found = Client(application), "", {}
    for operation, path, body in PLAY:
        method = operation.split()[0] if operation[0] != "(" else "POST"
        sent = json.loads(json.dumps(body).replace("SETUP", setup_token(body)).replace("LEASE", lease)) if body else None
        answer = client.request(method, path, sent)
        assert answer.status in (200, 201), (operation, answer)
        client.token = answer.json.get("token") or client.token
        if path.endswith("/claim"):
            lease = answer.data["lease_token"]
        if operation[0] != "(":
            shown = json.dumps({"path": path, "body": sent, "status": answer.status, "answer": answer.json}, ensure_ascii=False)
            shown = shown.replace(str(settings.data), "/opt/orkosi/data")
            for pattern, steady in CHANGING:
                shown = re.sub(pattern, steady, shown)
            found[operation] = json.loads(shown)
    return found


def setup_token(body):
    if body.get("token") != "SETUP":
        return ""
    with acting(system()):
        return users.ticket("setup", None, 60)


def test_the_examples_are_what_this_server_answers(application):
    found = play(application)
    if WRITE:
        FILE.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    kept = json.loads(FILE.read_text())
    assert list(kept) == list(found) and len(kept) >= 20
    for operation, example in found.items():
        assert kept[operation] == example, f"{operation}: write the examples anew, and read them"


def test_the_description_shows_them_where_they_belong():
    described, kept = openapi.openapi("http://localhost"), json.loads(FILE.read_text())
    for operation, example in kept.items():
        method, path = operation.split()
        shown = described["paths"][path.removeprefix("/api")][method.lower()]
        assert shown["responses"][str(example["status"])]["content"]["application/json"]["example"] == example["answer"], operation
        if example["body"]:
            assert shown["requestBody"]["content"]["application/json"]["example"] == example["body"], operation
        given = {one["name"]: one.get("example") for one in shown["parameters"] if one["in"] == "path"}
        assert all(f"/{value}" in example["path"] for value in given.values()) and len(given) == path.count("{"), operation
        query = dict(part.split("=") for part in example["path"].partition("?")[2].split("&") if part)
        assert {one["name"]: one["example"][0] if isinstance(one["example"], list) else str(one["example"]) for one in shown["parameters"] if one["in"] == "query" and "example" in one} == query, operation
    assert set(kept) <= {f"{one.method} {one.path}" for one in orkosi.endpoints()}
