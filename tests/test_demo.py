"""The demo: a company that works by itself, and nothing on a folder that is in use."""
import re
import shlex
import subprocess
import threading

import pytest
from conftest import eventually

from plugins import demo


@pytest.mark.slow
def test_the_demo_works_by_itself_and_its_lines_can_be_pasted(server):
    running = server("--demo")
    said = []
    reader = threading.Thread(target=lambda: said.extend(running.process.stdout), daemon=True)
    reader.start()
    text = eventually(lambda: "Count the gulls" in "".join(said) and "".join(said), patience=20)
    password = re.search(r"demo@example.com and ([^\s)]+)", text)[1]
    token = running.call("POST", "/auth/login", {"email": demo.EMAIL, "password": password})[1]["token"]
    curls = re.findall(r"curl .*?(?:\\\n.*)?$", text, re.M)
    assert len(curls) == 3
    for curl in curls:
        done = subprocess.run(shlex.split(curl.replace("\\\n", " ")), capture_output=True, text=True, timeout=10)
        assert '"data"' in done.stdout, (curl, done.stdout, done.stderr)
    listed = lambda: running.call("GET", "/tasks?limit=50", None, token)[1]["data"]  # noqa: E731
    eventually(lambda: {task["status"] for task in listed()} == {"done"}, patience=60, every=0.5)
    assert len(listed()) == len(demo.PLANS) + 1
    runs = running.call("GET", "/agent-runs?agent=bruno", None, token)[1]["data"]
    assert runs[0]["cost_micros"] == 7600 and running.call("GET", "/agents", None, token)[1]["meta"]["total"] == 3
    discovery_finds_each_thing_once(lambda method, path, body=None: running.call(method, path, body, token)[1]["data"])
    running.process.terminate()
    running.process.wait(20)
    reader.join(5)


def discovery_finds_each_thing_once(call):
    """An engine of the demo files a real task; its second run files none, and what a person has archived is not filed again."""
    stuck = call("POST", "/tasks", {"title": "Ask the harbour master", "status": "blocked"})["id"]

    def run():
        id = call("POST", "/discovery-engines/what-stands-still/run")["run_id"]
        found = lambda: next(one for one in call("GET", "/discovery-engines/what-stands-still")["recent_runs"] if one["id"] == id)  # noqa: E731
        eventually(lambda: found()["status"] in ("done", "failed"), patience=20)
        return {name: found()[name] for name in ("status", "new", "repeated", "dismissed")}
    assert run() == {"status": "done", "new": 1, "repeated": 0, "dismissed": 0}
    filed = call("GET", "/tasks?q=Unblock")
    assert [one["title"] for one in filed] == [f"Unblock task {stuck}: Ask the harbour master"]
    assert run() == {"status": "done", "new": 0, "repeated": 1, "dismissed": 0}
    call("PATCH", f"/tasks/{filed[0]['id']}", {"status": "archived"})
    assert run() == {"status": "done", "new": 0, "repeated": 0, "dismissed": 1} and len(call("GET", "/tasks?q=Unblock")) == 1


@pytest.mark.slow
def test_a_folder_in_use_is_left_alone(server, tmp_path):
    first = server()
    server.admin(first)
    first.stop()
    again = server("--demo")
    token = again.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    assert "not empty" in eventually(lambda: next((line for line in again.process.stdout if "demo" in line), ""))
    assert again.call("GET", "/agents", None, token)[1]["meta"]["total"] == 0
