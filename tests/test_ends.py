"""How runs end: reports that cannot be used, output of any size, what is put off, what is cancelled, and what would rather not end."""
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import HOME, eventually
from test_runner import Company, brain_pid

from plugins.agents import kept
from plugins.runner.report import read_report
from plugins.supervisor import processes, trees

pytestmark = pytest.mark.slow


@pytest.fixture
def company(server, tmp_path):
    return Company(server, tmp_path)


# ── reports ──


@pytest.mark.parametrize("report, said, run", [
    ('{"status": "finished", "tokens_in": 120, "note": "n"}', 'status: "finished" is not one of done, review, blocked', {"tokens_in": 120, "note": "n"}),
    ('{"status": "done", "cost_micros": -1, "tokens_out": 7}', "cost_micros: -1 is not a whole number, 0 or more", {"tokens_out": 7, "cost_micros": 0}),
    ('{"status": "blocked", "tokens_in": "many"}', 'tokens_in: "many" is not a whole number', {"tokens_in": 0}),
    ('{"status": "done", "tok', "The report is not JSON: ", {}), ("[1]", "The report is no JSON object", {}), ('{"x": "' + "y" * 70_000 + '"}', "at most 64 KiB", {})])
def test_a_report_that_cannot_be_used_is_no_success(company, report, said, run):
    company.brain(f"echo the answer; cat > $ORKOSI_REPORT <<'EOF'\n{report}\nEOF")
    id = company.task()
    company.run()
    task, made = company.show(id), company.runs()[0]
    assert (task["status"], task["reason"], task["resolution"]) == ("review", "report_unusable", "the answer")
    why = task["why"][0]
    assert why["code"] == "report_unusable" and said in why["sentence"] == task["last_error"] == made["error"] and len(why["sentence"]) < 1100
    assert run.items() <= made.items()
    warned = eventually(lambda: [one for one in company.call("GET", "/logs?agent=felix&level=warn") if said[:30] in one["message"]])
    assert f"task {id}" in warned[0]["message"]
    assert company.call("PATCH", f"/tasks/{id}", {"status": "done"})["reason"] is None


@pytest.mark.parametrize("text, fields, wrong", [
    ("", {}, None), ("  \n", {}, None), ('{"unknown": 1}', {}, None), ('{"tokens_in": 9007199254740993}', {"tokens_in": 0}, "tokens_in"),
    ('{"tokens_in": true, "tokens_out": 1.5}', {"tokens_in": 0, "tokens_out": 0}, "tokens_in: true"), ('{"note": null}', {"note": None}, None),
    ('{"retry_in_seconds": 90000}', {"retry_in_seconds": None}, "retry_in_seconds"), ('{"retry_in_seconds": 2}', {"retry_in_seconds": 2.0}, None),
    ("[" * 60_000, {}, "not JSON"), ('{"note": "' + "n" * 4001 + '"}', {"note": None}, "4,000"), ('{"tokens_in": 1e400}', {"tokens_in": 0}, "tokens_in"),
    ('{"note": "a\\u0000b", "tokens_in": 3}', {"note": None, "tokens_in": 3}, "whole characters"), ('{"note": "\\ud800"}', {"note": None}, "note"),
    ('{"note": "\\ud83e\\udd85"}', {"note": "🦅"}, None), ('{"status": NaN}', {"status": "done"}, "status"), ("\xff\xfe", {}, "not JSON")])
def test_each_field_of_a_report_is_read_by_itself(tmp_path, text, fields, wrong):
    (tmp_path / "report").write_bytes(text.encode("latin-1"))
    report, said = read_report(tmp_path / "report")
    assert {name: getattr(report, name) for name in fields} == fields
    assert (said is None) == (wrong is None) and (wrong is None or wrong in said)


# ── output ──


def whole(company, run, stream="stdout", limit=1 << 18):
    """All that the API gives of a stream, piece by piece."""
    text, offset = "", 0
    while offset is not None:
        piece = company.call("GET", f"/agent-runs/{run}/output?stream={stream}&offset={offset}&limit={limit}")
        assert piece["offset"] == offset and (piece["next_offset"] is None or piece["next_offset"] > offset)
        text, offset = text + piece["text"], piece["next_offset"]
    return text


def test_output_is_kept_whole_and_shown_piece_by_piece(company):
    company.brain(r"""python3 -c "print(''.join('%06d € é 🙂\n' % n for n in range(60000)), end='')"; echo oh >&2""")
    id = company.task()
    company.run()
    wanted = "".join(f"{number:06d} € é 🙂\n" for number in range(60000))
    run = company.runs()[0]
    assert (run["stdout_bytes"], run["stderr_bytes"], run["truncated"]) == (len(wanted.encode()), 3, True)
    assert whole(company, run["id"]) == wanted and whole(company, run["id"], "stderr") == "oh\n"
    assert whole(company, run["id"], limit=1001)[:5000] == wanted[:5000]
    resolution = company.show(id)["resolution"]
    assert wanted.startswith(resolution) and 65_000 < len(resolution.encode()) <= 65_536
    piece = company.call("GET", f"/agent-runs/{run['id']}/output?offset=99999999")
    assert (piece["text"], piece["next_offset"], piece["size"], piece["bytes"]) == ("", None, run["stdout_bytes"], run["stdout_bytes"])
    assert not list((company.home / "scratch").iterdir())


def test_output_arrives_while_the_brain_works(company):
    company.brain("echo first; echo hm >&2; touch said; while [ ! -e go ]; do sleep 0.05; done; echo second")
    company.task()
    runner = company.run(wait=False)
    eventually((company.home / "workspace/said").exists)
    run = company.runs()[0]["id"]
    piece = eventually(lambda: (got := company.call("GET", f"/agent-runs/{run}/output"))["text"] and got, 3)
    assert (piece["text"], piece["next_offset"]) == ("first\n", 6), "it goes on"
    lines = lambda: [one["message"] for one in company.call("GET", "/logs?agent=felix")]  # noqa: E731
    assert eventually(lambda: any(line == "out: first" for line in lines()) and any(line == "hm" for line in lines()))
    (company.home / "workspace/go").touch()
    runner.communicate(timeout=10)
    assert company.call("GET", f"/agent-runs/{run}/output?offset=6")["text"] == "second\n"
    assert not company.runs()[0]["truncated"]


def test_endless_output_neither_fills_the_disk_nor_stops_the_brain(server, tmp_path):
    company = Company(server, tmp_path)
    (company.folder / "orkosi.toml").write_text("run_output_mb = 1\n")
    company.brain("timeout 3 yes 'no end of this'; echo and an end >&2")
    id = company.task()
    company.run()
    run = company.runs()[0]
    piece = company.call("GET", f"/agent-runs/{run['id']}/output?offset=1048570")
    assert company.show(id)["status"] == "done" and run["stdout_bytes"] > 100 << 20
    assert (piece["size"], piece["next_offset"], piece["bytes"]) == (1 << 20, None, run["stdout_bytes"])
    assert (company.home / "logs/brain.log").stat().st_size < 3 << 20, "the log tells but the beginning"


def test_what_is_not_kept_is_counted_once(server, tmp_path):
    company = Company(server, tmp_path)
    (company.folder / "orkosi.toml").write_text("run_output_mb = 1\n")
    company.brain("head -c 3000000 /dev/zero | tr '\\0' 'a'; sleep 2")
    company.task()
    company.run()
    assert company.runs()[0]["stdout_bytes"] == 3_000_000 and company.runs()[0]["truncated"]


def test_a_brain_that_empties_its_own_output_goes_on(company):
    company.brain("for i in 1 2 3; do echo line $i > /dev/stdout; sleep 0.2; done")
    id = company.task()
    company.run()
    assert company.show(id)["resolution"] == "line 1\nline 2\nline 3"


@pytest.mark.parametrize("trap", ["ln -sf /etc/hostname {0}", "rm {0}; mkfifo {0}", "rm {0}; ln ../agent.json {0}", "rm {0}; mkdir {0}",
                                  "rm -r {1}; ln -s /etc {1}"])
def test_what_a_brain_lays_in_the_way_is_not_read(company, trap):
    company.brain("R=../runs/$ORKOSI_RUN_ID\n" + trap.format("$R/stdout", "$R") + "\necho hello")
    id = company.task()
    company.run()
    assert company.show(id)["resolution"] == "hello"
    status, answer = company.running.call("GET", f"/agent-runs/{company.runs()[0]['id']}/output", None, company.token)
    assert status == 404 and "Nothing is kept" in answer["error"]["message"]


def test_what_is_kept_makes_room_for_what_is_new(company, monkeypatch):
    folder = company.home / "runs"
    for number, (size, days) in enumerate([(100, 15), (900_000, 3), (900_000, 2), (100, 1)], 1):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "stdout").write_bytes(b"x" * size)
        moment = time.time() - 86400 * days
        os.utime(folder / str(number), (moment, moment))
    os.symlink("/etc", folder / "5")
    kept._prune(folder, time.time() - 14 * 86400, 1 << 20)
    assert {one.name for one in folder.iterdir()} == {"3", "4", "5"} and Path("/etc/hostname").exists()


# ── input, and again ──


def test_a_run_is_done_again_with_what_it_was_told_then(company):
    company.call("POST", "/credentials", {"key": "STRIPE_KEY", "value": "sk_live_never_written", "grants": ["felix"]})
    company.brain("cat > told-$ORKOSI_RUN_ID; echo once; echo $ORKOSI_TASK_ID > id-$ORKOSI_RUN_ID")
    company.call("POST", "/rules", {"rule": "be brief"})
    id = company.task(description="as it was then")
    subprocess.run([sys.executable, str(HOME / "orkosi.py"), "run-agent", "felix", "--data", str(company.folder)], check=True, timeout=20,
                   env=os.environ | {"ORKOSI_NO_INSTALL": "1", "OPERATORS_OWN": "hidden-from-the-file"})
    first = company.runs()[0]["id"]
    text = (company.home / f"runs/{first}/input.json").read_text()
    stored = json.loads(text)
    assert stored["told"] == json.loads((company.home / f"workspace/told-{first}").read_text()) and stored["told"]["rules"][0]["rule"] == "be brief"
    assert stored["environment"]["STRIPE_KEY"] == "[STRIPE_KEY]" and stored["environment"]["ORKOSI_TASK_ID"] == str(id)
    assert stored["environment"]["OPERATORS_OWN"] == "…"
    assert "sk_live" not in text and "hidden-from" not in text and (company.home / f"runs/{first}/input.json").stat().st_mode & 0o077 == 0
    company.call("PATCH", f"/tasks/{id}", {"description": "changed", "status": "archived"})
    job = company.call("POST", f"/agent-runs/{first}/replay")["job_id"]
    company.brain("cat > told-$ORKOSI_RUN_ID; echo twice")
    company.run()
    second = company.runs()[0]
    assert (second["mode"], second["replay_of"], second["task_id"], second["status"]) == ("replay", first, id, "done")
    assert json.loads((company.home / f"workspace/told-{second['id']}").read_text()) == stored["told"]
    assert company.call("GET", f"/task-queue/{job}")["result"]["resolution"] == "twice"
    assert (company.show(id)["status"], company.show(id)["resolution"]) == ("archived", "once"), "the task does not move"
    (company.home / f"runs/{first}/input.json").unlink()
    status, answer = company.running.call("POST", f"/agent-runs/{first}/replay", {}, company.token)
    assert status == 409 and "not kept" in answer["error"]["message"]


# ── putting off ──


def test_exit_75_costs_no_attempt_and_says_when_it_comes_back(company):
    company.brain("echo busy >&2; printf '{\"retry_in_seconds\": 300, \"tokens_in\": 9, \"note\": \"rate limit\"}' > $ORKOSI_REPORT; exit 75")
    id = company.task()
    company.run()
    job, run, task = company.job(id), company.runs()[0], company.show(id)
    assert (job["status"], job["attempt"], job["deferrals"], run["status"], run["tokens_in"]) == ("delayed", 0, 1, "retry", 9)
    assert 290 < time.mktime(time.strptime(job["run_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.mktime(time.gmtime()) < 301
    assert task["status"] == "todo" and "put_off" in [one["code"] for one in task["why"]]
    assert "rate limit" in task["last_error"] and "busy" in task["last_error"]


def test_waiting_ends_with_the_day_a_task_is_due(company):
    company.brain("echo busy >&2; printf '{\"retry_in_seconds\": 86400}' > $ORKOSI_REPORT; exit 75")
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 40_000))
    id = company.task(due_date=tomorrow if time.gmtime().tm_hour < 12 else time.strftime("%Y-%m-%d", time.gmtime()))
    company.run()
    task = company.show(id)
    assert task["status"] == "blocked" and "no time left to wait" in task["last_error"] and "busy" in task["last_error"]
    assert task["why"][-1]["code"] == "blocked"


# ── cancelling ──

STUBBORN = f"""exec {sys.executable} - <<'EOF'
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note(): open("pids", "a").write(f"{{os.getpid()}}\\n")
note()
for leaves in (0, 1):
    if os.fork() == 0:
        os.setsid(); note()
        if os.fork() == 0:
            os.setsid(); note()
            sys.stdout.close(), os.closerange(0, 3)
            time.sleep(120)  # until it is ended
        if leaves: os._exit(0)
        time.sleep(120)  # likewise
open("ready", "w").close()
time.sleep(120)  # likewise
EOF"""

WAYS = {
    "archive": lambda company, id: company.call("PATCH", f"/tasks/{id}", {"status": "archived"}),
    "delete": lambda company, id: company.call("DELETE", f"/tasks/{id}"),
    "cancel": lambda company, id: company.call("POST", f"/task-queue/{company.show(id)['job_id']}/cancel"),
    "reassign": lambda company, id: company.call("PATCH", f"/tasks/{id}", {"assignee": "ada"}),
    "reassign in public": lambda company, id: company.call("PATCH", f"/v1/public/tasks/{id}", {"assigned_to": "ada"}),
    "settle": lambda company, id: company.call("PATCH", f"/tasks/{id}", {"status": "done"}),
}


@pytest.mark.parametrize("way", [*WAYS, *["archive"] * 9])
def test_a_brain_that_would_rather_stay_is_gone_within_three_seconds(company, way):
    company.brain(STUBBORN)
    id = company.task()
    runner = company.run(wait=False)
    eventually((company.home / "workspace/ready").exists)
    time.sleep(0.3)  # the heartbeat listens by now
    pids = [int(pid) for pid in (company.home / "workspace/pids").read_text().split()]
    assert len(pids) == 5 and sum(bool(processes.born(pid)) for pid in pids) == 4
    began = time.monotonic()
    WAYS[way](company, id)
    eventually(lambda: not any(processes.born(pid) for pid in pids), 3.5)
    assert time.monotonic() - began < 3
    runner.communicate(timeout=10)
    assert company.runs()[0]["status"] == "stopped"
    assert any("Ended what it had started: " in line for line in (company.home / "logs/brain.log").read_text().splitlines())


def test_an_agent_whose_key_is_taken_away_stops(company):
    company.brain("echo $$ > pid; sleep 60")
    company.call("POST", "/task-queue/submit", {"task_type": "chore", "queue_name": "agent:felix", "timeout_seconds": 6})
    runner = company.run(wait=False)
    pid = brain_pid(company)
    (company.folder / "keys/felix").write_text("ork_key_of_nobody")
    began = time.monotonic()
    eventually(lambda: not processes.born(pid), 8)
    assert time.monotonic() - began < 6, "two seconds to the next heartbeat, one to be sure, two to end"
    runner.communicate(timeout=10)


def test_what_a_good_run_leaves_behind_is_ended_and_said(company):
    company.brain("setsid sh -c 'setsid sleep 77 & setsid sleep 78' & sleep 0.3; echo fine")
    id = company.task()
    company.run()
    assert company.show(id)["resolution"] == "fine"
    seen = trees.Seen.now()
    assert not trees.carrying(f"ORKOSI_REPORT={company.home}/scratch/", seen)
    line = next(line for line in (company.home / "logs/brain.log").read_text().splitlines() if "Ended what it had started" in line)
    assert line.count("sleep (") == 2 and f"[task {id}]" in line


def test_what_a_killed_runner_leaves_is_ended_by_the_next(company):
    company.brain("echo $$ > pid; setsid sleep 79 & sleep 60")
    company.task()
    runner = company.run(wait=False)
    brain_pid(company)
    mark = f"ORKOSI_REPORT={company.home}/scratch/"
    eventually(lambda: len(trees.carrying(mark, trees.Seen.now())) >= 2)
    os.kill(runner.pid, 9)
    runner.communicate()
    assert trees.carrying(mark, trees.Seen.now())
    company.brain("echo next")
    subprocess.run([sys.executable, str(HOME / "orkosi.py"), "run-agent", "felix", "--data", str(company.folder)], check=True, timeout=20,
                   env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
    assert not trees.carrying(mark, trees.Seen.now())
    assert "Ended left running before: " in (company.home / "logs/brain.log").read_text()


def test_a_pause_is_heard_without_hammering(company):
    """Once a pause is told, it would be told at once, each time."""
    company.brain("touch on; while [ ! -e go ]; do sleep 0.05; done; echo ok")
    id = company.task()
    runner = company.run(wait=False)
    eventually((company.home / "workspace/on").exists)
    company.call("POST", "/agents/felix/pause", {})
    time.sleep(1.5)  # in which a hot loop would ask a thousand times
    asked = (company.folder / "logs/orkosi.log").read_text().count("/heartbeat 200")
    assert asked <= 5
    (company.home / "workspace/go").touch()
    runner.communicate(timeout=10)
    assert company.show(id)["status"] == "done"


def test_many_processes_at_once_end_together():
    """A brain that forks while it is ended."""
    code = "import os, signal\nfor _ in range(40):\n    if os.fork() == 0:\n        os.setsid(); signal.pause()\nprint('on', flush=True); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", code], env={"ORKOSI_REPORT": "/x/y"}, stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    began = time.monotonic()
    threads = [threading.Thread(target=trees.end, args=("ORKOSI_REPORT=/x/", 1.0, [processes.identify(child.pid)], child.poll)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    child.stdout.close()
    assert time.monotonic() - began < 1.5 and not trees.carrying("ORKOSI_REPORT=/x/", trees.Seen.now())
