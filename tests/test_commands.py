"""The commands of the operator: agents, tasks, runs and the whole, beside a running server; for a person, for a pipe, and as JSON."""
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import threading

import pytest
from conftest import HOME, command, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def company(server):
    """A server with an administrator: a function that runs a command of its operator, and gives what that printed."""
    running = server()
    server.admin(running)

    def run(*arguments, fails=False):
        done = command(*arguments, folder=running.folder, check=not fails)
        return done.stderr if fails else done.stdout
    run.running = running
    return run


def lines(text):
    return [line.split("\t") for line in text.splitlines()]


def test_an_agent_is_made_and_a_task_is_done_at_the_command_line(company):
    assert lines(company("agent", "add", "otto", "--command", "/bin/echo 'hello  there'", "--interval", "1"))[0][2] == "/bin/echo hello  there"
    made = json.loads(company("agent", "show", "otto", "--json"))
    assert (made["command"], made["interval_sec"], made["wanted"]) == (["/bin/echo", "hello  there"], 1, "running")
    assert lines(company("task", "add", "Say hello", "--assignee", "otto", "--priority", "P1", "--due", "2030-01-31"))[0][2:5] == ["P1", "otto", "Say hello"]
    eventually(lambda: lines(company("task", "list"))[0][1] == "done", 15)
    task = json.loads(company("task", "show", "1", "--json"))
    assert (task["resolution"], task["due_date"]) == ("hello  there", "2030-01-31")
    run, = lines(company("runs", "--agent", "otto"))
    assert run[:4] == ["1", "otto", "1", "done"] and json.loads(company("runs", "--json"))[0]["task_id"] == 1
    assert "out: hello  there" in company("agent", "logs", "otto")
    assert json.loads(company("status", "--json"))["tasks"] == {"todo": 0, "in_progress": 0, "review": 0, "blocked": 0, "done": 1}


def test_agents_are_steered_and_tasks_settled(company):
    company("agent", "add", "felix", "--interval", "3600")
    for verb, status in [("pause", "paused"), ("resume", "idle"), ("stop", "stopped"), ("start", "idle"), ("restart", None)]:
        shown = lines(company("agent", verb, "felix", "--note", f"to {verb}"))
        assert shown[0][0] == "felix" and (status is None or shown[0][1] in (status, "active")) and shown[0][6] == f"to {verb}"
    company("task", "add", "One"), company("task", "add", "Two", "--after", "1")
    assert [row[5] for row in lines(company("task", "list"))] == ["Nobody is assigned; set an assignee"] * 2
    assert lines(company("task", "done", "1", "--resolution", "By hand"))[0][:2] == ["1", "done"]
    assert json.loads(company("task", "show", "1", "--json"))["resolution"] == "By hand"
    assert lines(company("task", "list", "--status", "todo"))[0][4] == "Two" and company("task", "list", "--query", "zebra") == ""
    assert json.loads(company("task", "list", "--json", "--limit", "1"))[0]["title"] == "Two"
    assert "agents\t1 " in company("status") and lines(company("agent", "list"))[0][0] == "felix"


@pytest.mark.parametrize("arguments, said", [
    (("agent", "add", "Felix!"), "name: Not acceptable: 2 to 31 lower-case letters"), (("agent", "stop", "nobody"), "There is no agent 'nobody'"),
    (("agent", "add", "felix", "--adapter", "ollama"), "model: The adapter ollama needs to be told which model"),
    (("task", "add", "x", "--due", "soon"), "due_date"), (("task", "show", "99"), "There is no task 99"), (("agent", "logs", "nobody"), "There is no agent")])
def test_what_is_refused_is_said_in_the_servers_words(company, arguments, said):
    assert said in company(*arguments, fails=True)


def test_an_absent_tool_and_a_duplicate_are_said_beside_the_data(company):
    done = command("agent", "add", "felix", "--adapter", "claude-code", "--json", folder=company.running.folder)
    assert json.loads(done.stdout)["adapter"] == "claude-code"
    assert "npm install -g @anthropic-ai/claude-code" in done.stderr or not done.stderr
    company("task", "add", "Once")
    assert "There is an open task like this one" in command("task", "add", "once", folder=company.running.folder).stderr


def test_a_log_is_followed(company):
    company("agent", "add", "felix", "--interval", "3600")
    child = subprocess.Popen([sys.executable, str(HOME / "orkosi.py"), "agent", "logs", "-f", "felix", "-n", "1", "--data", str(company.running.folder)],
                             stdout=subprocess.PIPE, text=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1", "PYTHONUNBUFFERED": "1"})
    threading.Timer(20, child.kill).start()  # a line that does not come must not be waited for
    try:
        assert "made: every 3600 s" in child.stdout.readline()
        company("agent", "pause", "felix", "--note", "lunch")
        assert "paused: lunch" in child.stdout.readline()
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=10)


def test_a_terminal_gets_a_table_that_fits(company):
    company("task", "add", "A long title " * 20)
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, str(HOME / "orkosi.py"), "task", "list", "--data", str(company.running.folder)], stdout=theirs,
                             env=os.environ | {"ORKOSI_NO_INSTALL": "1", "COLUMNS": "80"})
    child.wait(20)
    os.close(theirs)
    head, row = os.read(ours, 65536).decode().split("\r\n")[:2]
    os.close(ours)
    assert head.split() == ["ID", "STATUS", "PRIORITY", "ASSIGNEE", "TITLE", "WHY"] and len(row) <= 80 and "…" in row


def test_the_operators_token_is_the_owners_alone_and_ends_with_the_server(company):
    token = company.running.folder / "keys" / "operator"
    raw = token.read_text().strip()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and raw.startswith("ork_opr_")
    status, me = company.running.call("GET", "/auth/me", None, raw)
    assert status == 200 and me["data"]["role"] == "admin"
    assert company.running.call("GET", "/agents", None, raw[:-1] + ("0" if raw[-1] != "0" else "1"))[0] == 401
    for line in (company.running.folder / "logs/orkosi.log").read_text().splitlines():
        assert raw not in line
    company.running.stop()
    assert "No server runs for" in company("agent", "list", fails=True)


def test_before_anybody_is_set_up_it_says_how(server):
    running = server()
    assert "There is no administrator yet" in command("agent", "list", folder=running.folder, check=False).stderr


@pytest.mark.parametrize("arguments", [("agent", "list"), ("task", "list"), ("runs",), ("status",), ("user", "list"), ("key", "list")])
def test_who_only_looks_makes_no_folder(tmp_path, arguments):
    done = command(*arguments, folder=tmp_path / "none", check=False)
    assert done.returncode == 1 and str(tmp_path / "none") in done.stderr and not (tmp_path / "none").exists()


def test_an_invitation_has_its_link(company):
    code, link, good = command("invite", "create", "new@example.com", folder=company.running.folder).stdout.splitlines()
    assert link == f"{company.running.url}/invite/{code}" and good.startswith("Good for new@example.com until ")


@pytest.mark.parametrize("arguments", [
    ("vault", "status"), ("vault", "rotate"), ("tokens", "reconcile"), ("billing", "reconcile"), ("billing", "compare"), ("plan", "show", "1"),
    ("invite", "create", "a@example.com"), ("key", "create", "x", "--scope", "queue:work"), ("user", "role", "a@example.com", "--role", "editor")])
def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path, arguments):
    done = command(*arguments, folder=tmp_path / "nowhere", check=False)
    assert done.returncode == 1 and "There is no data folder of Orkosi at" in done.stderr and not (tmp_path / "nowhere").exists()
