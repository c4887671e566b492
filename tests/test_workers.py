"""Workers: programs that run jobs over HTTP, on real servers and real processes."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import HOME, eventually

ENOUGH = {"timeout_seconds": 30}


@pytest.fixture
def shop(server):
    """A server, a key, and workers of it: `shop.start(...)`, `shop.submit(...)`."""
    found = Shop(server)
    yield found
    for worker in found.workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


class Shop:
    def __init__(self, server):
        self.server, self.running = server, server()
        self.token = server.admin(self.running)
        self.key, self.workers = self.running.folder / "keys" / "worker", []
        done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), "key", "create", "worker", "--scope", "queue:work", "--data", str(self.running.folder)],
                              capture_output=True, text=True, env=self.running.env, check=True)
        self.key.write_text(done.stdout.split()[0])

    def program(self, name, text, folder=None):
        path = (folder or self.running.folder) / "workers" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *arguments, home=HOME, data=None):
        log = open(self.running.folder.parent / f"worker-{len(self.workers)}.log", "w")
        self.workers.append(subprocess.Popen([sys.executable, str(home / "orkosi.py"), "work", "--data", str(data or self.running.folder), *arguments],
                                             stdout=log, stderr=log, env=os.environ | {"ORKOSI_NO_INSTALL": "1"}))
        return self.workers[-1]

    def said(self):
        return "".join(path.read_text() for path in sorted(self.running.folder.parent.glob("worker-*.log")))

    def submit(self, task_type, payload=None, **more):
        status, said = self.running.call("POST", "/task-queue/submit", {"task_type": task_type, "payload": payload or {}, "max_attempts": 1, **ENOUGH, **more}, self.token)
        assert status == 201, said
        return said["data"]["id"]

    def job(self, id):
        return self.running.call("GET", f"/task-queue/{id}", None, self.token)[1]["data"]

    def over(self, id, *states, patience=15):
        eventually(lambda: self.job(id)["status"] in (states or ("completed", "failed", "dead")), patience)
        return self.job(id)


def test_a_program_is_told_the_payload_and_says_the_result(shop):
    shop.program("double", "#!/usr/bin/env python3\nimport json, os, sys\np = json.load(sys.stdin)\nprint(json.dumps({'twice': 2 * p['n'], 'of': os.environ['ORKOSI_TASK_TYPE'],"
                           "'at': os.environ['ORKOSI_ATTEMPT'], 'id': os.environ['ORKOSI_JOB_ID'], 'in': os.environ['ORKOSI_QUEUE']}))\n")
    shop.program("text", "#!/bin/sh\necho just words\n")
    shop.program("bad", "#!/bin/sh\necho why >&2\nexit 3\n")
    shop.program("later", "#!/bin/sh\necho not yet >&2\nexit 75\n")
    shop.start("--slots", "2")
    ids = {name: shop.submit(name, {"n": 21}) for name in ("double", "text", "bad", "later", "missing")}
    assert shop.over(ids["double"])["result"] == {"twice": 42, "of": "double", "at": "1", "id": ids["double"], "in": "default"}
    assert shop.over(ids["text"])["result"] == "just words"
    assert (shop.over(ids["bad"])["status"], shop.job(ids["bad"])["error"]) == ("dead", "It ended with 3\nwhy")
    assert "not yet" in shop.over(ids["later"], "delayed")["error"] and shop.job(ids["later"])["deferrals"] == 1
    assert "has no program for 'missing': put an executable of that name into" in shop.over(ids["missing"])["error"]


def test_a_name_that_is_no_name_runs_nothing(shop):
    """BullMQ's face takes any text for a name; as a path it must not lead anywhere."""
    (shop.running.folder / "escape").write_text("#!/bin/sh\ntouch /tmp/never\n")
    (shop.running.folder / "escape").chmod(0o755)
    ids = [shop.running.call("POST", "/bull-queue/submit", {"queue": "q", "name": name, "data": {}}, shop.token)[1]["data"]["id"] for name in ("..", "../escape", "x" * 200, "/bin/true")]
    shop.start("--queue", "q")
    for id in ids:
        assert "has no program" in shop.over(f"job_{id}")["error"]


def test_every_job_may_go_to_one_command(shop):
    shop.start("--exec", "sh -c 'echo $ORKOSI_TASK_TYPE; cat'", "--queue", "a", "--queue", "b")
    ids = [shop.submit("x.y", {"n": 1}, queue_name=name) for name in ("a", "b")]
    assert [shop.over(id)["result"] for id in ids] == ['x.y\n{"n": 1}'] * 2


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(shop, tmp_path):
    shop.program("slow", f"#!/bin/sh\n(setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 300') &\nsleep 300\n")
    shop.start("--timeout", "1.5")
    assert shop.over(shop.submit("slow"))["error"].startswith("It took longer than 1.5 s and was ended")
    child = int((tmp_path / "child").read_text())
    eventually(lambda: not os.path.exists(f"/proc/{child}") or "Z" in open(f"/proc/{child}/stat").read().split()[2])


def test_a_cancelled_job_ends_its_program(shop, tmp_path):
    shop.program("long", f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    shop.start()
    id = shop.submit("long")
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    assert shop.running.call("POST", f"/task-queue/{id}/cancel", None, shop.token)[0] == 200
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert shop.over(shop.submit("missing"))["status"] == "failed", "and its slot works on"


def test_told_to_end_it_finishes_what_runs_and_begins_nothing(shop):
    shop.program("short", "#!/bin/sh\nsleep 1.5\necho done\n")
    worker = shop.start()
    first, second = shop.submit("short"), shop.submit("short")
    shop.over(first, "active")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert (shop.job(first)["result"], shop.job(second)["status"], shop.job(second)["attempt"]) == ("done", "waiting", 0)


def test_told_twice_it_gives_back_what_runs(shop):
    shop.program("long", "#!/bin/sh\nexec sleep 300\n")
    worker = shop.start()
    id = shop.submit("long")
    shop.over(id, "active")
    worker.send_signal(signal.SIGTERM)
    time.sleep(0.7)  # which changes nothing yet
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0 and (shop.job(id)["status"], shop.job(id)["attempt"]) == ("waiting", 0)


def test_a_result_outlives_the_server_and_the_worker(shop):
    """The server is gone when it is done, and the worker with it; the next worker of that name delivers it, to the next server."""
    shop.program("once", f"#!/bin/sh\necho x >> {shop.running.folder}/ran\nsleep 1\necho kept\n")
    worker = shop.start("--name", "w")
    id = shop.submit("once", timeout_seconds=60)
    shop.over(id, "active")
    shop.running.kill()
    eventually(lambda: list((shop.running.folder / "work/w/undelivered").glob("*.json")))
    worker.kill()
    shop.running = shop.server()
    shop.start("--name", "w")
    assert shop.over(id)["result"] == "kept" and (shop.running.folder / "ran").read_text() == "x\n"


def test_two_of_one_name_do_not_work_beside_each_other(shop):
    shop.start("--name", "w")
    eventually(lambda: "works on" in shop.said())
    assert shop.start("--name", "w").wait(20) != 0 and "w is at work already" in shop.said()
    shop.start(), shop.start()
    eventually(lambda: shop.said().count("works on") == 3)


def test_what_a_killed_worker_left_running_is_ended_by_the_next(shop, tmp_path):
    shop.program("long", f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    worker = shop.start("--name", "w")
    shop.submit("long", timeout_seconds=60)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    worker.kill()
    shop.start("--name", "w")
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert "Ended what an earlier worker had left running: sleep" in shop.said()


def test_without_a_key_it_says_how_to_make_one(shop):
    shop.key.unlink()
    assert shop.start().wait(20) != 0 and "orkosi.py key create worker --scope queue:work" in shop.said()


@pytest.mark.slow
def test_the_worker_of_the_readme_goes_as_written(shop, tmp_path):
    block = next(one for one in re.findall(r"```sh\n(.*?)```", (HOME / "README.md").read_text(), re.S) if "data/workers/count" in one)
    shop.key.unlink()
    (tmp_path / "orkosi.py").symlink_to(HOME / "orkosi.py")
    script = block.replace("python3 orkosi.py", f"exec {sys.executable} {HOME}/orkosi.py").replace("exec ", "", 1)
    id = shop.submit("count", {"n": 1})
    shop.workers.append(subprocess.Popen(["sh", "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL, env=os.environ | {
        "ORKOSI_DATA": str(shop.running.folder), "ORKOSI_NO_INSTALL": "1"}))
    assert shop.over(id)["result"] == len('{"n": 1}')


@pytest.mark.slow
def test_five_thousand_jobs_are_each_completed_once_whoever_is_killed(shop, tmp_path):
    """Three workers, one of them from a copy of the folder elsewhere, over HTTP with a key; workers and server are killed at random."""
    chance, copy = random.Random(20), tmp_path / "elsewhere"
    shutil.copytree(HOME, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "data", "tests", "bench", ".*"))
    url, many = shop.running.url, 5000
    port = url.rpartition(":")[2]
    for folder in (None, copy / "data"):
        (folder or shop.running.folder).mkdir(exist_ok=True)
        shop.program("note", f"#!/bin/sh\nread -r line\necho \"$line\" >> {tmp_path}/ran\necho \"$line\"\n", folder)
    (copy / "key").write_text(shop.key.read_text())
    kinds = [(("--name", "a", "--slots", "3"), {}), (("--name", "b", "--slots", "3"), {}),
             (("--name", "c", "--slots", "3", "--url", url, "--key-file", str(copy / "key")), {"home": copy, "data": copy / "data"})]
    workers = [shop.start(*arguments, **more) for arguments, more in kinds]
    for first in range(0, many, 500):
        for n in range(first, first + 500):
            shop.submit("note", {"n": n}, timeout_seconds=10, max_attempts=25)
    last = time.monotonic()
    for _ in range(6):
        time.sleep(chance.uniform(0.5, 2))  # in which they work
        victim = chance.randrange(4)
        if victim == 3:
            shop.running.kill()
            shop.running = shop.server("--port", port)
        else:
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = shop.start(*kinds[victim][0], **kinds[victim][1])
        last = time.monotonic()

    def open_ones():
        return sum(shop.running.call("GET", f"/task-queue?status={state}&limit=1", None, shop.token)[1]["meta"]["total"] for state in ("waiting", "active", "delayed"))
    eventually(lambda: open_ones() == 0, 60 - (time.monotonic() - last), 0.5)
    done = shop.running.call("GET", "/task-queue?status=completed&limit=1", None, shop.token)[1]["meta"]["total"]
    ran = {json.loads(line)["n"] for line in (tmp_path / "ran").read_text().splitlines() if line.endswith("}")}
    assert done == many and ran == set(range(many))
