"""The main job, end to end: a real server, a real shell, a real brain; and all that can go wrong with it."""
import base64
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from urllib.parse import quote

import apsw
import pytest
from conftest import HOME, eventually

from plugins.runner.secrets import Blotter
from plugins.supervisor import processes

FOLDER = "my 'data' ü"


class Company:
    """A server with one agent whose brain the test writes. Nothing starts it but the test, or its interval."""

    def __init__(self, server, tmp_path, interval=3600, env=None):
        self.server, self.running = server, server(folder=tmp_path / FOLDER, env=env)
        self.folder, self.token = self.running.folder, server.admin(self.running)
        self.home = self.folder / "agents" / "felix"
        made = self.call("POST", "/agents", {"name": "felix", "interval_sec": interval})
        assert all(step["ok"] for step in made["steps"]), made["steps"]
        eventually(lambda: self.call("GET", "/agents/felix")["process"]["last_exit"] == 0)  # the run at load found nothing to do

    def call(self, method, path, body=None, status=(200, 201)):
        got, answer = self.running.call(method, path, body, self.token)
        assert got in status, answer
        return answer["data"]

    def brain(self, script):
        path = self.home / "workspace" / "brain"
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        path.chmod(0o755)

    def task(self, title="a task", **more):
        return self.call("POST", "/tasks", {"title": title, "assignee": "felix", **more})["id"]

    def run(self, wait=True, patience=30):
        """One cycle of the run script, or of the runner alone while it goes on."""
        process = subprocess.Popen(["/bin/sh", str(self.home / "run.sh")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   env={"HOME": os.environ["HOME"]}, start_new_session=True)
        if wait:
            said, _ = process.communicate(timeout=patience)
            assert process.returncode == 0, said
        return process

    def show(self, task):
        return self.call("GET", f"/tasks/{task}")

    def runs(self):
        return self.call("GET", "/agent-runs")

    def job(self, task):
        return self.call("GET", "/task-queue?queue_name=agent:felix")[0]


@pytest.fixture
def company(server, tmp_path):
    return Company(server, tmp_path)


def test_a_task_is_done_from_end_to_end(company):
    company.call("PATCH", "/agents/felix", {"model": "opus 4", "role": "builder"})
    company.brain(r'''
        cat > told.json
        echo "$ORKOSI_MODEL, $ORKOSI_ROLE" > tuned.txt
        echo "thinking about it" >&2
        printf 'bad \033[31m bytes \377\n' >&2
        printf '{"tokens_in": 120, "tokens_out": 30, "cost_micros": 4500, "note": "easy"}' > "$ORKOSI_REPORT"
        [ -r "$ORKOSI_KEY_FILE" ] && echo "Done by $ORKOSI_AGENT for task $ORKOSI_TASK_ID at $ORKOSI_URL in $PWD"''')
    rules = [company.call("POST", "/rules", {"rule": f"rule {number}"})["rule"] for number in range(230)]
    task = company.task(description="say 'hello'")
    company.run()
    shown = company.show(task)
    assert shown["status"] == "done"
    assert shown["resolution"] == f"Done by felix for task {task} at {company.running.url} in {company.home}/workspace"
    run, = company.runs()
    assert {name: run[name] for name in ("agent", "task_id", "status", "exit_code", "tokens_in", "tokens_out", "cost_micros", "note")} == {
        "agent": "felix", "task_id": task, "status": "done", "exit_code": 0, "tokens_in": 120, "tokens_out": 30, "cost_micros": 4500,
        "note": "easy"}
    told = json.loads((company.home / "workspace" / "told.json").read_text())
    assert told["task"]["description"] == "say 'hello'" and sorted(rule["rule"] for rule in told["rules"]) == sorted(rules) and "lease_token" not in told["job"]
    assert (company.home / "workspace" / "tuned.txt").read_text() == "opus 4, builder\n"
    lines = (company.home / "logs" / "brain.log").read_text().splitlines()
    assert lines[0].endswith(f"Z [task {task}] thinking about it") and "\\x1b[31m" in lines[1]
    assert not list((company.home / "undelivered").iterdir())


@pytest.mark.slow
def test_all_that_waits_is_done_in_one_cycle(company):
    company.brain("echo ok")
    tasks = [company.task(f"task {number}") for number in range(3)]
    company.run()
    assert {company.show(task)["status"] for task in tasks} == {"done"}


@pytest.mark.parametrize("script, task, job, run, said", [
    ("echo 'no idea' >&2; exit 3", "todo", "delayed", "failed", "no idea"),
    ("exit 75", "todo", "delayed", "retry", "tried again"),
    ("kill -9 $$", "todo", "delayed", "failed", "-9"),
    ("printf '{\"status\": \"review\"}' > $ORKOSI_REPORT", "review", "completed", "done", None),
    ("printf '{\"status\": \"blocked\", \"note\": \"needs a key\"}' > $ORKOSI_REPORT", "blocked", "completed", "done", "needs a key"),
    ("printf '{\"tokens_in\": -5}' > $ORKOSI_REPORT", "review", "completed", "done", "tokens_in: -5 is not a whole number, 0 or more"),
    ("ln -s /etc/passwd \"$ORKOSI_REPORT\"", "review", "completed", "done", "write a plain file of JSON"),
    ("exec 0<&-; echo early", "done", "completed", "done", None),
])
@pytest.mark.slow
def test_how_a_brain_may_end(company, script, task, job, run, said):
    company.brain(script)
    id = company.task(description="x" * 60_000)
    company.run()
    shown = company.show(id)
    assert (shown["status"], company.job(id)["status"], company.runs()[0]["status"]) == (task, job, run)
    assert said is None or said in shown["last_error"]


@pytest.mark.slow
def test_a_mac_stays_awake_for_as_long_as_a_brain_works_and_no_longer(server, tmp_path):
    program = tmp_path / "bin/caffeinate"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho \"$*\" >> '{tmp_path}/kept'; echo $$ > '{tmp_path}/pid'\nexec sleep 600\n")
    program.chmod(0o755)
    company = Company(server, tmp_path, env={"ORKOSI_AGENT_PATH": str(program.parent)})
    company.brain(f"while ! [ -s '{tmp_path}/pid' ]; do sleep 0.05; done; echo my number is $$")
    task = company.task()
    company.run()
    brain = company.show(task)["resolution"].split()[-1]
    assert (tmp_path / "kept").read_text() == f"-i -w {brain}\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
def test_a_missing_brain_is_named(company):
    id = company.task()
    company.run()
    assert f"{company.home}/workspace/brain" in company.show(id)["last_error"]
    company.call("PATCH", "/agents/felix", {"command": [sys.executable, "-c", "print('by command')"]})
    eventually(lambda: company.job(id)["status"] == "waiting", patience=20)  # after the back-off of the failed attempt
    company.run()
    assert company.show(id)["resolution"] == "by command"


@pytest.mark.slow
def test_much_output_is_cut_and_never_stops_the_brain(company):
    company.brain("head -c 3000000 /dev/zero | tr '\\0' 'x'; head -c 3000000 /dev/zero | tr '\\0' 'y' >&2; printf '\\000'")
    id = company.task()
    company.run()
    assert company.show(id)["resolution"] == "x" * 65536


@pytest.mark.slow
def test_a_task_that_takes_too_long_is_ended_with_all_its_children(company):
    company.brain("(trap '' TERM; sleep 60 & echo $! > child; wait) & sleep 60")
    id = company.task(max_duration_seconds=1)
    began = time.monotonic()
    company.run()
    assert time.monotonic() - began < 12
    assert "longer than 1 s" in company.show(id)["last_error"] and company.runs()[0]["status"] == "timeout"
    assert not processes.born(int((company.home / "workspace" / "child").read_text()))


@pytest.mark.slow
def test_what_a_brain_leaves_running_ends_with_it(company):
    company.brain("sleep 60 & echo $! > child; echo done")
    id = company.task()
    company.run()
    assert company.show(id)["resolution"] == "done"
    assert not processes.born(int((company.home / "workspace" / "child").read_text()))


SLOW = "echo $$ > pid; echo on it >&2; sleep 60 & wait"


def brain_pid(company):
    path = company.home / "workspace" / "pid"
    return eventually(lambda: path.exists() and path.read_text().strip() and int(path.read_text()))


@pytest.mark.slow
def test_a_stop_ends_the_brain_and_costs_no_attempt(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain(SLOW)
    id = company.task()
    pid = brain_pid(company)
    assert company.call("GET", "/agents/felix")["status"] == "working"
    began = time.monotonic()
    assert company.call("POST", "/agents/felix/stop", {})["status"] == "stopped"
    assert time.monotonic() - began < 8 and not processes.born(pid)
    job = company.job(id)
    assert (job["status"], job["attempt"]) == ("waiting", 0) and company.show(id)["status"] == "todo"
    assert eventually(lambda: company.runs()[0]["status"] == "stopped")
    company.brain("echo second time")
    company.call("POST", "/agents/felix/start", {})
    assert eventually(lambda: company.show(id)["resolution"] == "second time", patience=15)


@pytest.mark.slow
def test_a_pause_lets_the_brain_finish_and_takes_no_more(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain("echo $$ > pid; sleep 1.5; echo finished")
    first, second = company.task("one"), company.task("two")
    brain_pid(company)
    company.call("POST", "/agents/felix/pause", {})
    assert eventually(lambda: company.show(first)["status"] == "done")
    time.sleep(2)  # two of the agent's rounds, in which nothing is begun
    assert company.show(second)["status"] == "todo" and company.call("GET", "/agents/felix")["status"] == "paused"
    company.call("POST", "/agents/felix/resume", {})
    assert eventually(lambda: company.show(second)["status"] == "done", patience=15)


@pytest.mark.slow
def test_another_interval_lets_the_brain_finish(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain("echo $$ >> started; echo $$ > pid; sleep 2; echo finished")
    id = company.task()
    pid = brain_pid(company)
    assert company.call("PATCH", "/agents/felix", {"interval_sec": 2, "role": "carpenter"})["interval_sec"] == 2
    assert processes.born(pid), "it is at work"
    assert eventually(lambda: company.show(id)["resolution"] == "finished", patience=15)
    assert eventually(lambda: [run["status"] for run in company.runs()] == ["done"])
    assert len((company.home / "workspace" / "started").read_text().split()) == 1
    more = company.task("and goes by it")
    assert eventually(lambda: company.show(more)["status"] == "done", patience=15)


@pytest.mark.slow
def test_the_end_of_the_server_gives_the_job_back(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain(SLOW)
    id = company.task()
    pid = brain_pid(company)
    company.running.stop()
    assert not processes.born(pid)
    company.brain("echo after")
    company.running = server(folder=tmp_path / FOLDER)
    assert eventually(lambda: company.show(id)["resolution"] == "after", patience=15)
    assert company.job(id)["attempt"] == 1


@pytest.mark.slow
def test_a_killed_server_neither_loses_nor_doubles_the_work(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain("echo $$ >> started; echo $$ > pid; sleep 3; echo survived")
    id = company.task()
    brain_pid(company)
    company.running.kill()
    company.running = server(folder=tmp_path / FOLDER)
    assert eventually(lambda: company.show(id)["resolution"] == "survived", patience=20)
    assert len((company.home / "workspace" / "started").read_text().split()) == 1


@pytest.mark.slow
def test_a_result_is_kept_until_the_server_is_back(company, server, tmp_path):
    company.brain("echo $$ > pid; sleep 1; echo kept")
    id = company.task()
    runner = company.run(wait=False)
    brain_pid(company)
    company.running.kill()
    eventually(lambda: list((company.home / "undelivered").glob("*.json")))
    os.killpg(runner.pid, signal.SIGKILL)
    runner.communicate()
    company.brain("echo twice")
    company.running = server(folder=tmp_path / FOLDER)
    eventually(lambda: company.show(id)["status"] == "done", patience=15)
    assert company.show(id)["resolution"] == "kept"
    assert eventually(lambda: not list((company.home / "undelivered").glob("*.json")))


@pytest.mark.slow
def test_a_result_whose_lease_is_lost_is_dropped(company):
    (company.home / "undelivered" / "job_1-1.json").write_text(json.dumps([
        ["POST", "/task-queue/job_999/complete", {"lease_token": "x", "result": {}}]]))
    company.run()
    assert not list((company.home / "undelivered").iterdir())


@pytest.mark.slow
def test_what_a_run_cost_is_told_also_where_its_lease_is_lost(company):
    company.task()
    lease = company.call("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"})
    run = company.call("POST", "/agent-runs", {"agent": "felix", "job_id": lease["id"]})["id"]
    company.call("POST", f"/task-queue/{lease['id']}/fail", {"lease_token": lease["lease_token"], "error": "accepted, but the answer was lost"})
    (company.home / "undelivered" / f"{lease['id']}-1.json").write_text(json.dumps([
        ["POST", f"/task-queue/{lease['id']}/fail", {"lease_token": lease["lease_token"], "error": "no"}],
        ["PATCH", f"/agent-runs/{run}", {"status": "failed", "exit_code": 3, "tokens_in": 5000, "cost_micros": 70000}]]))
    company.run()
    found, = company.runs()
    assert (found["status"], found["exit_code"], found["tokens_in"], found["cost_micros"]) == ("lost", 3, 5000, 70000)
    assert "no longer" in found["error"] and not list((company.home / "undelivered").iterdir())


@pytest.mark.slow
def test_what_a_run_cost_is_kept_until_the_server_is_back_though_it_came_to_nothing(company, server, tmp_path):
    company.brain("""printf '{"tokens_in": 5000, "cost_micros": 70000}' > "$ORKOSI_REPORT"; echo $$ > pid; sleep 60""")
    id = company.task()
    runner = company.run(wait=False)
    brain_pid(company)
    company.running.kill()
    os.kill(runner.pid, signal.SIGTERM)
    runner.communicate()
    assert [path.name.partition("-")[0] for path in (company.home / "undelivered").glob("*.json")] == ["run_1"]
    company.brain("echo after")
    company.running = server(folder=tmp_path / FOLDER)
    first = eventually(lambda: [one for one in company.runs() if one["id"] == 1 and one["status"] == "stopped"])[0]
    assert (first["tokens_in"], first["cost_micros"], first["error"]) == (5000, 70000, "the agent was told to stop")
    assert company.show(id)["status"] in ("todo", "in_progress", "done") and not list((company.home / "undelivered").glob("run_*"))


@pytest.mark.slow
def test_what_is_accepted_of_a_result_is_not_sent_again(company):
    """The server goes between the two calls that tell of a result: the second alone is kept."""
    said, answers = [], [200, 503, 503, 200, 503]  # fail, the run, a claim; the run, a claim

    class Going(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            said.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(answers[len(said) - 1])
            self.end_headers()
            self.wfile.write(b'{"data": {}}')

        do_PATCH = do_POST

        def log_message(self, *_):
            pass

    company.running.stop()
    record, kept = {"status": "failed", "tokens_in": 5000}, company.home / "undelivered"
    (kept / "job_1-1.json").write_text(json.dumps([["POST", "/task-queue/job_1/fail", {}], ["PATCH", "/agent-runs/7", record]]))
    with http.server.HTTPServer(("127.0.0.1", 0), Going) as going:
        threading.Thread(target=going.serve_forever, daemon=True).start()
        (company.folder / "server.url").write_text(f"http://127.0.0.1:{going.server_port}")
        company.run()
        assert [path.name.partition("-")[0] for path in kept.iterdir()] == ["run_7"]
        company.run()
        going.shutdown()
    claim = "/api/task-queue/claim"
    assert [path for path, _ in said] == ["/api/task-queue/job_1/fail", "/api/agent-runs/7", claim, "/api/agent-runs/7", claim]
    assert said[3][1] == record and not list(kept.iterdir())


@pytest.mark.slow
def test_a_due_date_that_there_is_not_costs_no_attempt(company):
    company.brain("exit 75")
    id = company.task()
    con = apsw.Connection(str(company.folder / "orkosi.db"))  # as an earlier version stored it
    con.execute("UPDATE tasks SET due_date = '2026-99-99' WHERE id = ?", (id,)).fetchall()
    con.close()
    company.run()
    assert company.job(id)["status"] == "delayed" and company.job(id)["attempt"] == 0
    assert not list((company.home / "undelivered").iterdir())


@pytest.mark.slow
def test_a_brain_that_takes_its_workspace_away_takes_nothing_from_the_next(company):
    company.call("PATCH", "/agents/felix", {"command": ["/bin/sh", "-c", 'cd /; rm -rf "$OLDPWD"; echo done']})
    for _ in range(2):
        id = company.task()
        company.run()
        assert (company.show(id)["status"], company.show(id)["resolution"]) == ("done", "done")


@pytest.mark.slow
def test_a_result_that_is_refused_is_kept_and_waits_for_a_person_at_once(company):
    company.brain("echo fine")
    id = company.task()
    lease = company.call("POST", "/task-queue/claim", {"worker_id": "w", "queue_name": "agent:felix"})
    (company.home / "undelivered" / f"{lease['id']}-1.json").write_text(json.dumps([
        ["POST", f"/task-queue/{lease['id']}/complete", {"lease_token": lease["lease_token"], "result": "\ud800"}]]))
    company.run()
    task = company.show(id)
    assert task["status"] == "blocked" and "What came of it was refused" in task["last_error"] and ".rejected" in task["last_error"]
    assert [path.suffix for path in (company.home / "undelivered").iterdir()] == [".rejected"]


@pytest.mark.slow
def test_a_killed_runner_leaves_a_brain_that_the_next_one_ends(company):
    company.brain(SLOW)
    company.task()
    runner = company.run(wait=False)
    pid = brain_pid(company)
    eventually(lambda: (company.home / "brain.pid").exists())
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate()
    assert processes.born(pid)
    company.brain("echo again")  # where its job is taken back by now
    company.run()  # though nothing may wait
    assert not processes.born(pid)


@pytest.mark.slow
def test_the_job_of_a_killed_runner_does_not_wait_for_its_lease(server, tmp_path):
    company = Company(server, tmp_path, interval=1)
    company.brain("[ -e pid ] && { echo second time; exit; }; echo $$ > pid; sleep 60")
    id, other = company.task(max_duration_seconds=3600), company.call("POST", "/agents", {"name": "otto"})["name"]
    company.call("POST", "/task-queue/submit", {"task_type": "t", "queue_name": f"agent:{other}"})
    company.call("POST", "/task-queue/claim", {"queue_name": f"agent:{other}", "worker_id": f"{other}:{os.getpid()}"})
    company.call("POST", "/task-queue/submit", {"task_type": "t", "queue_name": f"agent:{other}"})
    company.call("POST", "/task-queue/claim", {"queue_name": f"agent:{other}", "worker_id": "from elsewhere"})
    brain_pid(company)
    os.kill(company.call("GET", "/agents/felix")["process"]["pid"], signal.SIGKILL)
    assert eventually(lambda: company.show(id)["resolution"] == "second time", patience=25)
    assert company.job(id)["attempt"] == 2
    assert {one["status"] for one in company.call("GET", "/task-queue?queue_name=agent:otto")} == {"active"}, "of whom it is not known stays"


@pytest.mark.slow
def test_a_cancelled_task_ends_its_brain(company):
    company.brain("echo $$ > pid; trap 'exit 0' TERM; sleep 60 & wait")
    id = company.task()
    claimed = company.run(wait=False)
    brain_pid(company)
    # The lease of a task is five minutes; nobody wants to wait for a third of that here.
    claimed.terminate()
    claimed.communicate(timeout=15)
    assert company.job(id)["status"] == "waiting" and company.job(id)["attempt"] == 0
    job = company.call("POST", "/task-queue/submit", {"task_type": "chore", "queue_name": "agent:felix", "timeout_seconds": 1, "priority": -1})
    (company.home / "workspace" / "pid").unlink()
    runner = company.run(wait=False)
    pid = brain_pid(company)
    company.call("POST", f"/task-queue/{job['id']}/cancel")
    assert eventually(lambda: not processes.born(pid))
    runner.communicate(timeout=15)
    assert company.call("GET", f"/task-queue/{job['id']}")["status"] == "cancelled"


@pytest.mark.slow
def test_a_lease_is_kept_alive_while_the_brain_thinks(company):
    company.brain("sleep 2.5; echo slow but sure")
    job = company.call("POST", "/task-queue/submit", {"task_type": "chore", "queue_name": "agent:felix", "timeout_seconds": 1})
    company.run()
    shown = company.call("GET", f"/task-queue/{job['id']}")
    assert (shown["status"], shown["attempt"], shown["result"]["resolution"]) == ("completed", 1, "slow but sure")


@pytest.mark.slow
def test_an_unknown_agent_is_one_sentence(company):
    done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), "run-agent", "../x", "--data", str(company.folder)], text=True,
                          capture_output=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
    assert done.returncode == 1 and "There is no agent" in done.stderr and "Traceback" not in done.stderr


# ── granted credentials ──


@pytest.mark.slow
def test_the_agents_own_key_is_in_nothing_that_is_kept(company):
    company.brain('cat "$ORKOSI_KEY_FILE"; cat "$ORKOSI_KEY_FILE" >&2')
    id = company.task()
    company.run()
    key = (company.folder / "keys" / "felix").read_text().strip()
    assert company.show(id)["resolution"] == "[ORKOSI_MCP_TOKEN]"
    assert not [path for path in company.home.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_granted_credential_is_in_the_brains_environment_and_in_nothing_that_is_kept(company):
    """Printed plainly, in base64 at every place in a group, URL-encoded, as JSON, cut by long lines: nothing of it is in the data folder."""
    secrets = {"STRIPE_KEY": "sk_live_51H8xQ+/z?=&ü", "PEM_KEY": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"}
    for key, value in secrets.items():
        company.call("POST", "/credentials", {"key": key, "value": value, "grants": ["felix"]})
    company.call("POST", "/credentials", {"key": "OTHER", "value": "not for felix"})
    company.brain(f"""exec {sys.executable} - <<'EOF'
import base64, json, os, sys, urllib.parse
assert "OTHER" not in os.environ and os.environ["ORKOSI_AGENT"] == "felix"
for out in (sys.stdout, sys.stderr):
    for value in (os.environ["STRIPE_KEY"], os.environ["PEM_KEY"]):
        raw = value.encode()
        print("plain", value, "json", json.dumps(value), "url", urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), file=out)
        for before in (b"", b"u:", b"x"):
            print(base64.b64encode(before + raw).decode(), base64.urlsafe_b64encode(before + raw + b"tail").decode(), file=out)
        for pad in range(8150, 8200, 7):
            print("p" * pad + value.splitlines()[-1], file=sys.stderr)
print("n" * (65536 - 3000) + (os.environ["STRIPE_KEY"] + " ") * 400)
json.dump({{"note": "used " + os.environ["STRIPE_KEY"], "tokens_in": 1}}, open(os.environ["ORKOSI_REPORT"], "w"))
EOF""")
    task = company.task()
    company.run()
    shown, run = company.show(task), company.runs()[0]
    assert shown["status"] == "done" and "plain [STRIPE_KEY] json" in shown["resolution"] and run["note"] == "used [STRIPE_KEY]"
    company.running.stop()
    wanted = [value.encode() for value in secrets.values()] + [b"MIIEvQIBADANBgkqhkiG9w0B", b"sk_live_51H8xQ", base64.b64encode(b"sk_live_51H8xQ+/z?=")[:20],
                                                               base64.b64encode(b"u:sk_live_51H8xQ+/z?")[4:20], base64.b64encode(b"xsk_live_51H8xQ+/z?=")[4:20]]
    for file in company.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            raw = file.read_bytes()
            assert not [one for one in wanted if one in raw], file


@pytest.mark.slow
def test_a_sealed_vault_costs_a_brain_nothing_but_time(company):
    company.call("POST", "/credentials", {"key": "STRIPE_KEY", "value": "x" * 20, "grants": ["felix"]})
    company.running.stop()
    key_file = company.folder.parent / "master.key"
    key_file.rename(key_file.with_suffix(".away"))
    company.running = company.server(folder=company.folder)
    company.brain("echo never > ran.txt")
    task = company.task()
    company.run()
    shown = company.show(task)
    assert shown["status"] == "todo" and "STRIPE_KEY cannot be read: " in shown["last_error"] and "import-key" in shown["last_error"]
    assert not (company.home / "workspace/ran.txt").exists()


@pytest.mark.parametrize("value", ["abcd", "é" * 5, "a b+c/d?&=%", "x" * 3000, "two\nlines of eight", "ab"])
def test_every_face_of_a_value_is_blotted(value):
    blot = Blotter({"K": value})
    texts = [value, quote(value, safe=""), json.dumps(value)] if len(value) >= 4 else []
    for text in texts:
        assert value not in blot(f"<{text}>") and "[K]" in blot(text), text
    for before in range(3):
        core = base64.b64encode(b"\0" * before + value.encode())
        assert len(value) < 7 or "[K]" in blot(core.decode())
    assert Blotter({})("anything") == "anything"
    piped = io.BytesIO(b"p" * 90 + value.encode() + b"q" * 90 + b"\n" + value.encode())
    out = "".join(blot.lines(piped, 50))
    assert ("\n" in value or len(value) < 4) or (value not in out and out.count("[K]") == 2), out


def test_output_is_taken_once_also_where_a_write_is_under_way(tmp_path):
    """Linux notes the time of a write before the file has grown: whoever looks in between sees another time, and the same length."""
    from plugins.runner.output import Output
    from plugins.runner.secrets import Blotter
    (tmp_path / "kept").mkdir()
    out = Output(tmp_path, tmp_path / "kept", 1 << 20, tmp_path / "log", "m", Blotter({}))
    os.write(out.file, b"one\ntwo\n")
    assert out.follow()
    os.utime(out.file, ns=(1, 1))
    assert not out.follow()
    os.write(out.file, b"three\n")
    assert out.follow() and out.resolution == "one\ntwo\nthree\n"
    os.ftruncate(out.file, 0)  # its program begins anew, and has written as much by now
    os.write(out.file, b"four\nfive\nsix\n"[:14])
    out.finish()
    assert out.resolution == "one\ntwo\nthree\nfour\nfive\nsix\n"[:28]
