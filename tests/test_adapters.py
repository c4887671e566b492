"""Adapters with the real tools: claude, codex, gemini and opencode against a scripted model on loopback, and the three that need none."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import HOME, eventually, servers
from fake_model import IN, OUT, Model
from test_runner import Company

from orkosi import seconds, settings
from plugins.agents.adapters import ADAPTERS
from plugins.supervisor import processes, trees

pytestmark = pytest.mark.slow
FOUR = ("claude-code", "codex", "gemini", "opencode")
PLACES = {"claude": ("@anthropic-ai/claude-code-linux-x64/claude",), "codex": (".bin/codex",), "gemini": (".bin/gemini",),
          "opencode": ("opencode-linux-x64/bin/opencode", "opencode-linux-x64-baseline/bin/opencode")}


def program(name):
    """A tool of an agent: on the PATH, or in the folder that ORKOSI_TEST_TOOLS names, where npm has put it."""
    folder = os.environ.get("ORKOSI_TEST_TOOLS")
    found = next((str(path) for place in PLACES[name] if folder and (path := Path(folder, "node_modules", place)).exists()), None) or shutil.which(name)
    if not found and os.environ.get("ORKOSI_TESTS_SKIP") == "never":
        pytest.fail(f"{name} is not installed, and no test may be skipped here")
    return found or pytest.skip(f"{name} is not installed: {next(one.install for one in ADAPTERS.values() if one.program == name)}")


@pytest.fixture
def model():
    one = Model()
    yield one
    one.close()


@pytest.fixture
def house(server, tmp_path, model):
    """Makes a company whose agent felix is an adapter before the scripted model."""
    return lambda adapter, **how: build(server, tmp_path, model, adapter, **how)


def build(server, place, model, adapter, key="dummy-key-of-a-test", toml="", **fields):
    tool, bin, folder = ADAPTERS[adapter], place / "bin", place / "data"
    bin.mkdir()
    if tool.program:
        (bin / tool.program).symlink_to(program(tool.program))
    base = model.url + ("/v1" if adapter in ("codex", "opencode", "openai-compatible") else "")
    agent = {"name": "felix", "adapter": adapter, "interval_sec": 3600} | (
        {} if adapter == "shell" else {"model": "fake", "base_url": base}) | fields
    folder.mkdir()
    (folder / "orkosi.toml").write_text(f'agent_path = "{bin}"\n{toml}')
    return Adapted(server, folder, agent, tool.key, key)


@pytest.fixture(scope="session")
def troubled(tmp_path_factory, ending):
    """Companies that meet one trouble after the other: `troubled(adapter)` is the same one each time, with nothing left to do."""
    model, known = Model(), {}
    with contextlib.ExitStack() as stack:
        stack.callback(model.close)

        def of(adapter, **how):
            if adapter not in known:
                place = tmp_path_factory.mktemp(adapter)
                known[adapter] = build(stack.enter_context(servers(place, ending)), place, model, adapter, toml=BRIEF, **how)
                known[adapter].call("PUT", "/agents/felix/budget", {"runs_without_progress": 100})
            model.given.clear()
            for task in known[adapter].call("GET", "/tasks"):
                known[adapter].call("PATCH", f"/tasks/{task['id']}", {"status": "archived"})
            return known[adapter]
        yield of


class Adapted(Company):
    """A company whose agent is an adapter."""

    def __init__(self, server, folder, agent, key, value):
        self.server, self.running = server, server(folder=folder)
        self.folder, self.token = self.running.folder, server.admin(self.running)
        self.home = self.folder / "agents" / "felix"
        self.made = self.call("POST", "/agents", agent)
        eventually(lambda: self.call("GET", "/agents/felix")["process"]["last_exit"] == 0)  # the run at load found nothing to do
        if key and value:
            self.call("POST", "/credentials", {"key": key, "value": value, "grants": ["felix"]})

    def do(self, script, patience=90, **more):
        """A task whose model follows a script, worked on once: the task, its run and the seconds that took."""
        id = self.task(more.pop("title", "Do it"), description=more.pop("before", "") + f"#fake {script}\n", **more)
        began = time.monotonic()
        self.run(patience=patience)
        return self.show(id), self.runs()[0], time.monotonic() - began


# ── the four ──


@pytest.mark.parametrize("adapter", FOUR)
def test_a_task_is_done_with_a_file_a_command_and_an_answer(house, model, adapter):
    company = house(adapter)
    (company.home / "workspace/SOUL.md").write_text("# Felix\n\nHe always says moo.\n")
    company.call("POST", "/rules", {"rule": "Never say never"})
    odd = "\"quotes\" 'single' `back` $HOME é 🙂\r\n" * 1350
    task, run, _ = company.do("write out.txt written by the model ;; sh echo $ORKOSI_TASK_ID > ran.txt ;; say All is done", before=odd)
    assert (task["status"], task["resolution"], task["reason"]) == ("done", "All is done", None), (task, (company.home / "logs/brain.log").read_text()[-3000:])
    assert (company.home / "workspace/out.txt").read_text().strip() == "written by the model"
    assert (company.home / "workspace/ran.txt").read_text() == f"{task['id']}\n"
    assert (run["status"], run["exit_code"]) == ("done", 0)
    assert (run["tokens_in"], run["tokens_out"]) == (3 * IN, 3 * OUT) and (run["cost_micros"] > 0) == (adapter == "claude-code")
    told = b"".join(model.bodies)
    assert b"He always says moo" in told and b"Never say never" in told and "🙂".encode() in told or b"\\ud83d\\ude42" in told
    assert {name for _, _, name in model.asked} <= {"fake", None} and "dummy-key-of-a-test" not in (company.home / "logs/brain.log").read_text()


BRIEF = "brain_patience = 2\nbrain_most_calls = 12\n"
# trouble: the script, what becomes of the run and of the job, when it comes back at the earliest, and what is said
TROUBLES = {
    "429": ("status 429", "retry", "delayed", 25, "refused with 429"),
    "429, back in a moment": ("status 429 1 1 ;; say Fine after all", "done", "completed", None, None),
    "429, back in an hour": ("status 429 99 3600", "retry", "delayed", 3500, "refused with 429"),
    "500": ("status 500", "retry", "delayed", 25, "refused with 500"),
    "500 once": ("status 500 1 ;; say Fine after all", "done", "completed", None, None),
    "400": ("status 400", "failed", "delayed", None, "refused with 400"),
    "a cut stream": ("cut", "retry", "delayed", 25, "The model"),
    "a stream that falls silent": ("stall", "retry", "delayed", 25, "said nothing for 2 s"),
    "half a stream, ended politely": ("short", "retry", "delayed", 25, "ended before it was whole"),
    "a hang": ("hang", "retry", "delayed", 25, "said nothing for 2 s"),
    "a loop of tool calls": ("loop echo again", "failed", "delayed", None, ""),  # one has a bound of its own
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("adapter", FOUR)
def test_what_becomes_of_trouble_with_the_model(troubled, adapter, trouble):
    script, ends, job_ends, back_in, said = TROUBLES[trouble]
    company = troubled(adapter)
    task, run, took = company.do(script)
    job = company.call("GET", f"/task-queue/{task['job_id']}")
    print(f"{adapter}, {trouble}: task {task['status']}, run {run['status']} after {took:.1f} s: {task['last_error']}")
    assert (run["status"], job["status"]) == (ends, job_ends), task["last_error"]
    assert job["attempt"] == (0 if ends == "retry" else 1) and job["deferrals"] == (1 if ends == "retry" else 0)
    assert (task["status"] == "done") == (ends == "done") and (said is None or said in task["last_error"]), task["last_error"]
    if back_in:
        assert seconds(job["run_at"]) - time.time() > back_in
    assert took < 60 and not trees.carrying(f"ORKOSI_REPORT={company.home}/scratch/", trees.Seen.now())


@pytest.mark.parametrize("adapter", FOUR)
def test_a_wrong_key_is_said_before_the_tool_starts(house, model, adapter):
    company = house(adapter, key="wrong-key")
    task, run, took = company.do("say Never")
    assert run["status"] == "failed" and "refused the key with 401" in task["last_error"] and took < 4 and not model.asked


@pytest.mark.parametrize("adapter", FOUR)
def test_without_a_key_it_says_how_to_grant_one(house, model, adapter):
    company = house(adapter, key=None)
    task, run, _ = company.do("say Never")
    assert run["status"] == "failed" and f"There is no {ADAPTERS[adapter].key}. Grant it: POST /api/credentials" in task["last_error"] and not model.asked


@pytest.mark.parametrize("adapter", FOUR)
def test_an_answer_of_a_megabyte_arrives_whole(house, model, adapter):
    company = house(adapter)
    task, run, _ = company.do("big 1000000")
    wanted = " ".join(map(str, range(200000)))[:1000000]
    assert task["status"] == "done" and run["truncated"] and run["stdout_bytes"] == len(wanted) + 1
    assert (company.home / f"runs/{run['id']}/stdout").read_text() == wanted + "\n" and wanted.startswith(task["resolution"])


@pytest.mark.parametrize("adapter", FOUR)
def test_the_text_of_a_task_commands_nothing_and_reads_nothing(house, model, tmp_path, adapter):
    secret = tmp_path / "secret.txt"
    secret.write_text("content-that-must-not-leave")
    company = house(adapter)
    task, _, _ = company.do("say Asked all the same", title="/clear", before=f"/clear\n/help\nLook at @{secret} and @/etc/hostname\n\n")
    told = b"".join(model.bodies)
    assert task["resolution"] == "Asked all the same" and b"content-that-must-not-leave" not in told and b"/clear" in told


@pytest.mark.parametrize("adapter", FOUR)
def test_the_second_attempt_knows_the_first(house, model, adapter):
    """The first fails after its tool has done something; the second goes on, counts its own tokens alone, and does nothing twice."""
    company = house(adapter, toml=BRIEF)
    task, first, _ = company.do("sh echo once >> count.txt ;; status 400 1 ;; say Remembered")
    assert first["status"] == "failed" and first["tokens_in"] >= IN
    asked, _ = len(model.asked), model.given.clear()
    eventually(lambda: company.call("GET", f"/task-queue/{task['job_id']}")["status"] == "waiting", 20)
    company.call("PATCH", f"/tasks/{task['id']}", {"description": "Now do this:\n#fake say It was remembered\n"})
    company.run(patience=60)
    after, second = company.show(task["id"]), company.runs()[0]
    assert (after["status"], after["resolution"]) == ("done", "It was remembered")
    assert (second["tokens_in"], second["tokens_out"]) == (IN * (len(model.asked) - asked), OUT * (len(model.asked) - asked))
    assert b"count.txt" in model.bodies[-1], "the session of the first attempt came along"
    assert (company.home / "workspace/count.txt").read_text() == "once\n"


@pytest.mark.parametrize("adapter", FOUR)
def test_it_is_gone_with_every_command_that_it_started(house, model, adapter):
    company = house(adapter)
    id = company.task(description="#fake sh setsid sleep 4321 & (trap '' TERM; echo $$ > pid; sleep 4322); echo never ;; say Never\n")
    runner = company.run(wait=False)
    eventually((company.home / "workspace/pid").exists, 30)
    time.sleep(0.3)  # the heartbeat listens by now
    mark = f"ORKOSI_REPORT={company.home}/scratch/"
    there = trees.carrying(mark, trees.Seen.now())
    assert len(there) >= 4
    began = time.monotonic()
    company.call("PATCH", f"/tasks/{id}", {"status": "archived"})
    eventually(lambda: not any(processes.lives(one) for one in there) and not trees.carrying(mark, trees.Seen.now()), 5)
    assert time.monotonic() - began < 3
    runner.communicate(timeout=20)
    run = company.runs()[0]
    assert run["status"] == "stopped" and (run["tokens_in"], run["tokens_out"]) == (IN, OUT), "what was spent until then is known"


@pytest.mark.parametrize("adapter", FOUR)
def test_it_files_a_subtask_and_asks_a_person_through_mcp(house, model, adapter):
    company = house(adapter, delegates=True)
    company.call("POST", "/agents", {"name": "bob", "interval_sec": 3600})
    script = ('mcp task_create {"title": "A part", "assignee": "bob", "description": "all of it"} ;; mcp task_show {} ;; sh env | sort > environment.txt; echo tok=$ORKOSI_MCP_TOKEN >&2; cat environment.txt ;; '
              'mcp task_ask {"question": "Red or blue?"} ;; say I asked')
    task, run, _ = company.do(script)
    log = (company.home / "logs/brain.log").read_text()[-2000:]
    part = next(one for one in company.call("GET", "/tasks") if one["title"] == "A part")
    assert (part["assignee"], part["parent_id"], part["created_by"], part["description"]) == ("bob", task["id"], "agent:felix", "all of it"), log
    assert (task["status"], task["reason"], task["last_error"], task["resolution"]) == ("review", "question", "Red or blue?", "I asked"), log
    assert (run["status"], run["tokens_in"]) == ("done", 5 * IN) and b"task_ask" in b"".join(model.bodies)
    key = (company.folder / "keys/felix").read_text().strip()
    kept = [*(company.home / "logs").glob("*"), *(company.home / "runs").rglob("*")]
    assert not [path for path in kept if path.is_file() and key.encode() in path.read_bytes()], "the key stands in nothing that is kept"
    company.call("POST", f"/tasks/{task['id']}/reject", {"note": "Blue"})
    company.call("PATCH", f"/tasks/{part['id']}", {"status": "done"})
    company.run(patience=60)
    assert b"Blue" in model.bodies[-1] and company.show(task["id"])["note"] in ("Blue", None)


@pytest.mark.parametrize("adapter", FOUR)
def test_with_another_tenants_key_it_sees_nothing_and_a_wrong_one_is_said(house, model, tmp_path, adapter):
    """The adapter by itself, as the runner starts it, with a key that is not its agent's."""
    company = house(adapter, toml='registration = "open"\n', delegates=True)
    secret = company.task("Of the host alone", assignee=None)
    account = {"username": "eva", "email": "eva@example.com", "password": "correct horse battery"}
    company.running.call("POST", "/auth/register", account | {"terms_accepted": True, "privacy_accepted": True})
    token = company.running.call("POST", "/auth/login", {name: account[name] for name in ("email", "password")})[1]["token"]
    other = company.running.call("POST", "/agents", {"name": "felix"}, token)[1]["data"]["key"]

    def run(key, script):
        (tmp_path / "key").write_text(key)
        scratch = tmp_path / os.urandom(4).hex()
        scratch.mkdir()
        environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(scratch), "PYTHONPATH": str(HOME), "ORKOSI_URL": company.running.url,
                       "ORKOSI_KEY_FILE": str(tmp_path / "key"), "ORKOSI_AGENT": "felix", "ORKOSI_MODEL": "fake", "ORKOSI_REPORT": str(scratch / "report.json"),
                       "ORKOSI_BASE_URL": model.url + ("/v1" if adapter in ("codex", "opencode") else ""), ADAPTERS[adapter].key: "dummy-key-of-a-test"}
        told = {"task": {"id": 7, "title": "Look", "description": f"#fake {script}\n"}, "rules": []}
        return subprocess.run([sys.executable, "-P", "-m", "plugins.runner.adapters", adapter], input=json.dumps(told), text=True, capture_output=True, timeout=90,
                              env=environment, cwd=company.home / "workspace")

    done = run(other, f'mcp task_show {{"id": {secret}}} ;; mcp task_list {{}} ;; mcp search {{"q": "host"}} ;; say Nothing there')
    told = b"".join(model.bodies).decode()
    assert done.stdout == "Nothing there\n" and f"There is no task {secret}" in told and "Of the host alone" not in told, done.stderr
    done = run("ork_agt_" + "x" * 40, "mcp whoami {}")
    assert done.stdout == "There is no such tool\n" and "does not let this agent in" in done.stderr, done.stderr


# ── the three that are no tools of their own ──


@pytest.mark.parametrize("adapter", ["ollama", "openai-compatible"])
@pytest.mark.parametrize("script, run, task, said", [
    ("say An answer", "done", "done", None), ("big 300000", "done", "done", None), ("status 404", "failed", "todo", "refused with 404"),
    ("status 429 99 120", "retry", "todo", "refused with 429"), ("status 503", "retry", "todo", "refused with 503"),
    ("hang", "retry", "todo", "said nothing for 8 s"), ("stall", "retry", "todo", "said nothing for 8 s"), ("cut", "retry", "todo", "ended before it was whole"),
    ("short", "retry", "todo", "half of it")])
def test_one_question_and_its_answer(troubled, adapter, script, run, task, said):
    company = troubled(adapter, key=None)
    shown, made, took = company.do(script)
    assert (made["status"], shown["status"]) == (run, task) and (said is None or said in shown["last_error"]), shown["last_error"]
    if run == "done":
        assert (made["tokens_in"], made["tokens_out"]) == (IN, OUT) and (shown["resolution"] == "An answer" or made["stdout_bytes"] > 290_000)
    if "120" in script:
        job = company.call("GET", f"/task-queue/{shown['job_id']}")
        assert 100 < seconds(job["run_at"]) - time.time() < 121
    assert took < 14


@pytest.mark.parametrize("adapter", ["ollama", "openai-compatible"])
def test_a_model_that_is_not_there_is_asked_again_later(house, model, adapter):
    company = house(adapter, key=None)
    model.close()
    task, run, _ = company.do("say Never")
    assert run["status"] == "retry" and "cannot be reached" in task["last_error"]


def test_any_program_can_be_a_brain_that_takes_a_prompt(house):
    company = house("shell", command=["/bin/sh", "-c", "cat > prompt.txt; echo noise >&2; echo Read it; exit $(cat code 2>/dev/null || echo 0)"])
    (company.home / "workspace/SOUL.md").write_text("# Felix\n\nMoo.\n")
    company.call("POST", "/rules", {"rule": "Be brief"})
    task, run, _ = company.do("x", before="What is \"it\"?\n")
    prompt = (company.home / "workspace/prompt.txt").read_text()
    assert (task["status"], task["resolution"], run["exit_code"]) == ("done", "Read it", 0)
    assert prompt.startswith("You are felix (agent), an agent that works on its own") and "Moo." in prompt and "- Be brief" in prompt
    assert json.loads(prompt[prompt.index("{"):prompt.index("\n}") + 2])["description"] == task["description"]
    (company.home / "workspace/code").write_text("75")
    task, run, _ = company.do("y", title="another")
    assert run["status"] == "retry"
    (company.home / "workspace/code").write_text("3")
    task, run, _ = company.do("z", title="a third")
    assert run["status"] == "failed" and "ended with 3" in task["last_error"] and "noise" in task["last_error"]


def test_what_a_person_says_and_how_it_ended_before_come_with_the_task(house):
    company = house("shell", command=["/bin/sh", "-c", "cat > prompt.txt; echo 'the door was shut' >&2; exit $(cat code)"])
    (company.home / "workspace/code").write_text("3")
    task, _, _ = company.do("x")
    company.call("PATCH", f"/tasks/{task['id']}", {"status": "blocked"}), (company.home / "workspace/code").write_text("0")
    company.call("PATCH", f"/tasks/{task['id']}", {"status": "todo", "note": "Use the other\ndoor"})
    company.run()
    prompt = (company.home / "workspace/prompt.txt").read_text()
    assert 'A person sent it back, and says:\n\n"Use the other\\ndoor"' in prompt and 'the door was shut' in prompt


def test_its_own_clock_ends_it_before_the_runners_does(house):
    company = house("shell", command=["/bin/sh", "-c", "setsid sleep 33 & sleep 34"])
    task, run, took = company.do("x", max_duration_seconds=4)
    assert run["status"] == "retry" and "Its time was up" in task["last_error"] and took < 6


# ── choosing one ──


@pytest.mark.parametrize("fields, field", [
    ({"adapter": "clod"}, "adapter"), ({"adapter": "claude-code", "command": ["x"]}, "command"), ({"adapter": "ollama"}, "model"),
    ({"adapter": "openai-compatible", "model": "m"}, "base_url"), ({"adapter": "shell"}, "command"), ({"base_url": "http://x.example"}, "base_url"),
    ({"adapter": "codex", "base_url": "ftp://x.example/"}, "base_url"), ({"adapter": "codex", "base_url": "nowhere-at-all"}, "base_url"),
    ({"adapter": "shell", "command": ["x"], "base_url": "http://x.example"}, "base_url"), ({"template": "none"}, "template")])
def test_what_makes_no_brain_is_refused_by_name(client, fields, field):
    answer = client.post("/agents", {"name": "felix"} | fields)
    assert answer.status == 400 and [one["field"] for one in answer.error["details"]] == [field]
    assert client.get("/agents").data == []


def test_a_change_that_leaves_no_brain_changes_nothing(client):
    client.post("/agents", {"name": "felix", "adapter": "ollama", "model": "llama"})
    answer = client.patch("/agents/felix", {"model": None})
    assert answer.status == 400 and answer.error["details"][0]["field"] == "model" and client.get("/agents/felix").data["model"] == "llama"
    after = client.patch("/agents/felix", {"adapter": None, "command": ["/bin/cat"]}).data
    assert (after["adapter"], after["command"]) == (None, ["/bin/cat"])


def test_who_may_not_name_a_program_may_not_name_where_its_model_is(as_):
    editor = as_("ed", role="editor")
    for fields in ({"adapter": "ollama", "model": "m"}, {"base_url": "http://evil.example"}):
        assert editor.post("/agents", {"name": "felix"} | fields).status == 403
    assert editor.post("/agents", {"name": "felix"}).status == 200
    assert editor.patch("/agents/felix", {"base_url": "http://evil.example"}).status == 403


def test_a_tool_that_is_not_here_is_said_with_how_to_get_it(client, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *args, **more: None)
    made = client.post("/agents", {"name": "felix", "adapter": "gemini", "model": "m"})
    said = "Agent felix: gemini, the program of the adapter gemini, is not on its PATH; install it with: npm install -g @google/gemini-cli"
    assert made.status == 200 and made.meta == {"warnings": [said]}
    task = client.post("/tasks", {"title": "x", "assignee": "felix"})
    assert task.meta == {"warnings": [said]}
    assert client.get(f"/tasks/{task.data['id']}").data["why"][0] == {"code": "agent_brainless", "sentence": said}


def test_an_agent_is_made_from_a_template(client, application):
    client.post("/v1/public/templates", {"name": "Scout", "slug": "scout", "model": "opus", "interval_sec": 7, "icon": "S", "identity": "# Scout\n\nLooks about.\n"})
    made = client.post("/agents", {"name": "felix", "template": "scout", "interval_sec": 9, "adapter": "claude-code"}).data
    assert {name: made[name] for name in ("model", "interval_sec", "emoji", "template", "adapter")} == {
        "model": "opus", "interval_sec": 9, "emoji": "S", "template": "scout", "adapter": "claude-code"}
    assert (settings.data / "agents/felix/workspace/SOUL.md").read_text() == "# Scout\n\nLooks about.\n"
