"""Clients that others generate from /api/openapi.json: they are made without a complaint, and do the main job."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def tool(*places, name, install):
    """A generator: in the folder that ORKOSI_TEST_TOOLS names, or on the PATH."""
    folder = os.environ.get("ORKOSI_TEST_TOOLS")
    found = next((str(path) for place in places if folder and (path := Path(folder, place)).exists()), None) or shutil.which(name)
    if not found and os.environ.get("ORKOSI_TESTS_SKIP") == "never":
        pytest.fail(f"{name} is not installed, and no test may be skipped here")
    return found or pytest.skip(f"{name} is not installed: {install}")


@pytest.fixture
def described(server, tmp_path):
    """A running server, its administrator's token, and a file with its description."""
    import urllib.request
    running = server()
    with urllib.request.urlopen(f"{running.url}/api/openapi.json", timeout=10) as answer:
        (tmp_path / "openapi.json").write_bytes(answer.read())
    return running, server.admin(running), tmp_path / "openapi.json"


def test_a_client_in_python_does_the_main_job(described, tmp_path, monkeypatch):
    generator = tool("py/bin/openapi-python-client", name="openapi-python-client", install="pip install openapi-python-client")
    running, token, description = described
    done = subprocess.run([generator, "generate", "--path", str(description), "--output-path", str(tmp_path / "made_client"), "--meta", "none"],
                          capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": f"{Path(generator).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0 and "some pieces may be missing" not in done.stdout, done.stdout + done.stderr
    script = tmp_path / "main_job.py"
    script.write_text(MAIN_JOB)
    python = Path(generator).parent / "python"
    ran = subprocess.run([str(python if python.exists() else sys.executable), str(script), running.url, token], capture_output=True, text=True, timeout=60,
                         cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    jobs = running.call("GET", "/task-queue", None, token)[1]["data"]
    assert [(job["task_type"], job["status"], job["result"]) for job in jobs] == [("resize", "completed", {"ok": True})]
    assert running.call("GET", "/tasks/1", None, token)[1]["data"]["status"] == "done"


MAIN_JOB = """
import importlib, pkgutil, sys
import made_client
from made_client import AuthenticatedClient
for module in pkgutil.walk_packages(made_client.__path__, "made_client."):
    importlib.import_module(module.name)
from made_client import models
from made_client.api.queue import queue_claim, queue_complete, queue_heartbeat, queue_submit
from made_client.api.tasks import tasks_create, tasks_show, tasks_update
client = AuthenticatedClient(base_url=sys.argv[1] + "/api", token=sys.argv[2], raise_on_unexpected_status=True)
kind = lambda operation: next(value for name, value in operation.sync_detailed.__annotations__.items() if name == "body")
real = lambda hint: next(one for one in getattr(hint, "__args__", (hint,)) if hasattr(one, "from_dict"))
body = lambda operation, given: real(kind(operation)).from_dict(given)
made = queue_submit.sync_detailed(client=client, body=body(queue_submit, {"task_type": "resize", "payload": {"file": "a.png"}})).parsed.data
held = queue_claim.sync_detailed(client=client, body=body(queue_claim, {"worker_id": "generated"})).parsed.data
assert held.id == made.id and held.payload.to_dict() == {"file": "a.png"} if hasattr(held.payload, "to_dict") else held.payload == {"file": "a.png"}
heard = queue_heartbeat.sync_detailed(held.id, client=client, body=body(queue_heartbeat, {"lease_token": held.lease_token})).parsed.data
assert heard.cancel is False and heard.pause is False
over = queue_complete.sync_detailed(held.id, client=client, body=body(queue_complete, {"lease_token": held.lease_token, "result": {"ok": True}})).parsed.data
assert str(over.job.status) == "completed"
task = tasks_create.sync_detailed(client=client, body=body(tasks_create, {"title": "From a client"})).parsed.data
tasks_update.sync_detailed(task.id, client=client, body=body(tasks_update, {"status": "done"}))
assert str(tasks_show.sync_detailed(task.id, client=client).parsed.data.status) == "done"
"""


def test_a_client_in_typescript_compiles(described, tmp_path):
    generator = tool("node_modules/.bin/openapi-typescript", name="openapi-typescript", install="npm install openapi-typescript")
    compiler = tool("node_modules/.bin/tsc", name="tsc", install="npm install typescript")
    _, _, description = described
    made = subprocess.run([generator, str(description), "-o", str(tmp_path / "orkosi.d.ts"), "--default-non-nullable", "false"], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "use.ts").write_text('''
import type { paths } from "./orkosi";
type Claim = paths["/task-queue/claim"]["post"]["requestBody"]["content"]["application/json"];
const claim: Claim = { worker_id: "w", wait_seconds: 5 };
// @ts-expect-error a field of another type
const wrong: Claim = { worker_id: 5 };
export { claim, wrong };
''')
    checked = subprocess.run([compiler, "--noEmit", "--strict", "--skipLibCheck", "false", str(tmp_path / "use.ts")], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout
