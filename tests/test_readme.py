"""The README's walk-through, pasted line by line into a real shell."""
import contextlib
import os
import re
import subprocess
import sys

import pytest
from browser import required
from conftest import HOME, complaints, eventually
from receiver import Receiver
from standardwebhooks.webhooks import Webhook


def blocks():
    return re.findall(r"```sh\n(.*?)```", (HOME / "README.md").read_text(), re.S)


@pytest.mark.slow
def test_the_walk_through_does_what_it_says(server, tmp_path):
    required("curl", "curl")
    running = server()
    walk = next(block for block in blocks() if "thinking hard" in block)
    worker = next(block for block in blocks() if "claim_next" in block).splitlines()
    (tmp_path / "orkosi.py").symlink_to(HOME / "orkosi.py")
    script = walk.replace("http://127.0.0.1:3001", running.url).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    script = script.replace("sleep 5", "sleep 6") + "\n" + "\n".join(worker)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                          env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "", done.stderr
    assert '"step":10' in done.stdout
    assert '"status":"done"' in done.stdout and '"resolution":"Looked into it: all is well"' in done.stdout
    assert '"message":"thinking hard"' in done.stdout
    assert '"task_type":"resize"' in done.stdout and '"status":"completed"' in done.stdout and '"next":null' in done.stdout


@pytest.mark.slow
def test_the_first_agent_goes_as_written(server, tmp_path):
    running = server()
    script = next(block for block in blocks() if "agent add ada" in block).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", script.replace("sleep 5", "sleep 6")], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                          env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "", done.stderr
    assert "Looked around: all is well" in done.stdout and re.search(r"status\s+done", done.stdout), done.stdout


@pytest.mark.slow
def test_the_demo_finishes_tasks_by_itself(server):
    running = server("--demo")
    lines = []
    for line in iter(running.process.stdout.readline, ""):
        lines.append(line)
        if "Count the gulls" in line:
            break
    said = "".join(lines)
    key = re.search(r"ork_live_\w+", said)[0]
    found = eventually(lambda: running.call("GET", "/changelog", token=key)[1].get("data"), patience=60, every=0.5)
    assert found[0]["agent"] and found[0]["summary"]
    assert running.call("GET", "/agent-runs", token=key)[0] == 200
    assert "/setup/" not in said


@pytest.mark.slow
def test_secrets_and_tokens_go_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    admin = server.admin(running)
    running.call("POST", "/agents", {"name": "felix"}, admin)
    key = {"ORKOSI_MASTER_KEY_FILE": str(running.folder.parent / "master.key"), "ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"}
    recovery = subprocess.run([sys.executable, f"{HOME}/orkosi.py", "vault", "recovery-key"], capture_output=True, text=True, env=os.environ | key).stdout
    for words, said in (("vault confirm", ["noted as kept", '"created":true', '"grants":["felix"]', '"value":"sk_test_1"', "A new master key", "1 secret was sealed anew"]),
                        ("tokens/consume", ['"balance_after":100000', '"balance":98800', "agree"])):
        script = next(block for block in blocks() if words in block).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
        script = f"U={running.url}/api; T={admin}; J='Content-Type: application/json'\n" + script
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=90, env=os.environ | key, input=recovery.strip()[-4:] + "\n")
        assert complaints(done) == "" and '"error"' not in done.stdout and all(one in done.stdout for one in said), done.stdout + done.stderr


@pytest.mark.slow
def test_billing_goes_as_written(server, stripe_outside, tmp_path):
    required("curl", "curl")
    env = {"ORKOSI_STRIPE_API_BASE": stripe_outside.url, "ORKOSI_REGISTRATION": "open", "ORKOSI_INTEGRATIONS_PRIVATE": "on"}
    running = server(env=env)
    admin = server.admin(running)
    nobody = {"username": "olga", "email": "olga@example.com", "password": "a horse of her own", "terms_accepted": True, "privacy_accepted": True}
    assert running.call("POST", "/auth/register", nobody)[0] in (200, 201)
    owner = running.call("POST", "/auth/login", {"email": nobody["email"], "password": nobody["password"]})[1]["token"]
    script = next(block for block in blocks() if "plan grant" in block).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", f"U={running.url}/api; T={admin}; O={owner}; J='Content-Type: application/json'\n" + script], cwd=tmp_path,
                          capture_output=True, text=True, timeout=90,
                          env=os.environ | env | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1",
                                                  "ORKOSI_MASTER_KEY_FILE": str(running.folder.parent / "master.key")})
    session, = stripe_outside.checkout_sessions.values()
    assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
    for said in ("Tenant 2 has the plan solo now, until 2099-12-31T", '"status":"granted","limited":true', "Tenant 2 has no plan", '"verified"', session["url"],
                 '"client_secret":"pi_', '"setup_client_secret":"seti_', "day,", '"mrr_cents":0', "events were missed", "agree"):
        assert said in done.stdout, (said, done.stdout)


@pytest.mark.slow
def test_letting_others_in_goes_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    script = next(block for block in blocks() if "auth/forgot-password" in block)
    script = script.replace("http://127.0.0.1:3001", running.url).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                          env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "" and '"error"' not in done.stdout, done.stdout + done.stderr
    assert '"role":"admin"' in done.stdout and '"success":true' in done.stdout and '"deleted":true' in done.stdout
    assert done.stdout.endswith("not a trace\n")


@pytest.mark.slow
def test_giving_keys_goes_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    script = next(block for block in blocks() if "Idempotency-Key" in block)
    script = script.replace("http://127.0.0.1:3001", running.url).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                          env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "", done.stdout + done.stderr
    assert done.stdout.count('"title":"Pack order 7"') == 3 and done.stdout.count('"id":1,') >= 3
    assert '"scopes":["tasks:read","tasks:write"]' in done.stdout and '"route":"/api/v1/public/tasks"' in done.stdout
    assert done.stdout.count('"error"') == 1 and '"code":"unauthorized"' in done.stdout  # the revoked key
    assert re.search(r"key_\w+ +active .*'Night job'", done.stdout) and re.search(r"key_\w+ +revoked .*'Web shop'", done.stdout)


@pytest.mark.slow
def test_schedules_go_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    script = next(block for block in blocks() if '"every_ms"' in block).replace("http://127.0.0.1:3001", running.url)
    token = server.admin(running)
    done = subprocess.run(["sh", "-c", f"T={token}\n{script}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert complaints(done) == "" and '"error":' not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count('"name":"news"') == 5 and '"coming":["' in done.stdout and '"deleted":true' in done.stdout
    assert '"cron":"30 7 * * 1-5"' in done.stdout and '"enabled":false' in done.stdout


@pytest.mark.slow
def test_mcp_goes_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    script = next(block for block in blocks() if "tools/list" in block).replace("http://127.0.0.1:3001", running.url)
    script = script.replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", f"T={server.admin(running)}\n{script}"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "" and '"code":-3' not in done.stdout and '"isError":true' not in done.stdout, done.stdout + done.stderr
    assert '"name":"task_ask"' in done.stdout and "Paint the fence" in done.stdout and '"contents":[' in done.stdout and '"id":4' in done.stdout


@pytest.mark.slow
def test_hooks_go_as_written(server, tmp_path):
    required("curl", "curl"), required("openssl", "openssl")
    running = server()
    script = next(block for block in blocks() if "X-GitHub-Delivery" in block).replace("http://127.0.0.1:3001", running.url)
    done = subprocess.run(["sh", "-c", f"T={server.admin(running)}\n{script}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert complaints(done) == "" and '"error":' not in done.stdout, done.stdout + done.stderr
    assert '"outcome":"made"' in done.stdout and '"outcome":"repeated"' in done.stdout and done.stdout.count('"title":"The door squeaks"') == 1
    assert '"received":2,"made":1' in done.stdout and '"enabled":false' in done.stdout and '"deleted":true' in done.stdout


@pytest.mark.slow
def test_webhooks_go_as_written(server, tmp_path):
    required("curl", "curl")
    with Receiver((200, "thank you")) as receiver:
        running = server(env={"ORKOSI_WEBHOOKS_PRIVATE": "1"})
        script = next(block for block in blocks() if "rotate_secret" in block).replace("http://127.0.0.1:3001", running.url)
        script = script.replace("https://hooks.example/in", receiver.url)
        done = subprocess.run(["sh", "-c", f"T={server.admin(running)}\n{script}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
        secrets = re.findall(r'"secret":"(whsec_[^"]+)"', done.stdout)
        assert [Webhook(secrets[0]).verify(body, headers)["type"] for _, headers, body in receiver.got[:2]] == ["webhook.test", "task.created"]
    assert len(set(secrets)) == 2 and done.stdout.count('"response_body":"thank you"') >= 2 and '"status":"paused"' in done.stdout
    assert '"deleted":true' in done.stdout


@pytest.mark.slow
def test_discovery_goes_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    script = next(block for block in blocks() if "discovery-engines" in block)
    done = subprocess.run(["sh", "-c", f"T={server.admin(running)} U={running.url}/api J='Content-Type: application/json'\n{script}"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
    assert '"slug":"safety-net"' in done.stdout and '"new":1' in done.stdout and '"tasks_created":1' in done.stdout


@pytest.mark.slow
def test_costs_go_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    token = server.admin(running)
    assert running.call("POST", "/agents", {"name": "felix"}, token)[0] == 200
    script = next(block for block in blocks() if "/budget" in block)
    done = subprocess.run(["sh", "-c", f"T={token} U={running.url}/api J='Content-Type: application/json'\n{script}"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count('"cost_micros_per_day":5000000') == 2 and '"meta":{"from":' in done.stdout


@pytest.mark.slow
def test_seeing_goes_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    token = server.admin(running)
    running.call("POST", "/tasks", {"title": "Open the shop"}, token)
    script = next(block for block in blocks() if "/arch-health" in block).replace("python3 orkosi.py", f"{sys.executable} {HOME}/orkosi.py")
    done = subprocess.run(["sh", "-c", f"T={token} U={running.url}/api J='Content-Type: application/json'\n{script}"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, env=os.environ | {"ORKOSI_DATA": str(running.folder), "ORKOSI_NO_INSTALL": "1"})
    assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
    assert '"title":"Open the shop"' in done.stdout and 'orkosi_tasks{status="todo",priority="P2"} 1' in done.stdout
    assert '"watchers":"ok"' in done.stdout and done.stdout.endswith("every sum agrees with its rows\n")


@pytest.mark.slow
def test_events_go_as_written(server, tmp_path):
    required("curl", "curl")
    running = server()
    token = server.admin(running)
    running.call("POST", "/tasks", {"title": "t"}, token)
    script = next(block for block in blocks() if "wait_seconds=1&" in block)
    done = subprocess.run(["sh", "-c", f"T={token} U={running.url}/api J='Content-Type: application/json'\n{script}"], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert complaints(done) == "" and '"error":{' not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("retry: 2000") == 2 and '"type":"task.created"' in done.stdout and '"reset":false' in done.stdout


def worker(language):
    """The worker of the README in a language, as a file has it."""
    text = (HOME / "README.md").read_text()
    return re.search(rf"```{language}\n(# worker\..*?)```", text, re.S)[1]


@pytest.mark.slow
@pytest.mark.parametrize("language, program, suffix", [("python", sys.executable, "py"), ("sh", "/bin/sh", "sh")])
def test_the_workers_of_the_readme_lose_nothing_when_they_are_killed(server, tmp_path, language, program, suffix):
    required("curl", "curl")
    text = worker(language)
    assert len(text.splitlines()) <= {"python": 60, "sh": 30}[language]
    (tmp_path / f"worker.{suffix}").write_text(text)
    running = server()
    admin = server.admin(running)
    key = subprocess.run([sys.executable, f"{HOME}/orkosi.py", "key", "create", "worker", "--scope", "queue:work", "--data", str(running.folder)],
                         capture_output=True, text=True, check=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1"}).stdout.split()[0]
    jobs = [running.call("POST", "/task-queue/submit", {"task_type": "t", "queue_name": "work", "payload": {"seconds": seconds}, "timeout_seconds": 3}, admin)[1]["data"]["id"]
            for seconds in (0, 1, 0, 30, 0)]
    job = lambda id: running.call("GET", f"/task-queue/{id}", None, admin)[1]["data"]  # noqa: E731
    start = lambda: subprocess.Popen([program, str(tmp_path / f"worker.{suffix}"), f"{running.url}/api", key, "work"], start_new_session=True)  # noqa: E731
    one = start()
    try:
        eventually(lambda: job(jobs[1])["status"] == "active")
        one.kill()  # in the middle of the second
        two = start()
        eventually(lambda: [job(id)["status"] for id in jobs[:3]] == ["completed"] * 3, 40)
        assert job(jobs[1])["attempt"] == 2
        eventually(lambda: job(jobs[3])["status"] == "active")
        running.call("POST", f"/task-queue/{jobs[3]}/cancel", {}, admin)
        eventually(lambda: job(jobs[4])["status"] == "completed", 15)  # not after thirty seconds
        assert job(jobs[3])["status"] == "cancelled"
    finally:
        for child in (one, two):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            child.wait()


@pytest.mark.parametrize("name", ["README.md", "launchd/README.md"])
def test_its_comments_can_be_pasted_into_zsh(name):
    """Which takes `#` for a command at its prompt, and goes on after a quote, a semicolon or a bracket in what was meant as a comment."""
    for block in re.findall(r"```sh\n(.*?)```", (HOME / name).read_text(), re.S):
        if not block.startswith("# worker"):  # that is a file
            assert not [line for line in block.splitlines() if line.startswith("#") and re.search(r"[;`'\"()&|<>$*?!~]", line)], "a shell would obey it"
            assert not re.findall(r"^[^#\n'\"]*[^\s#][ \t]+#.*", re.sub(r"'[^']*'|\"[^\"]*\"", "x", block), re.M), "zsh would hand it to the command"
