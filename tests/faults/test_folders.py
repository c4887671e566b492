"""What an agent leaves in its folder, and what stands in a row, must stop nobody else; and nobody else may look in."""
import os
import stat
import subprocess
import threading
import time
from pathlib import Path

import apsw
import pytest
from conftest import HOME, eventually

BRAIN = "#!/bin/sh\necho fine\n"


def agent(running, token, name):
    status, made = running.call("POST", "/agents", {"name": name, "interval_sec": 1}, token)
    assert status == 200 and all(step["ok"] for step in made["data"]["steps"])
    brain = running.folder / "agents" / name / "workspace/brain"
    brain.write_text(BRAIN)
    brain.chmod(0o700)
    return running.folder / "agents" / name


def works(running, token, name, patience=10):
    """Whether an agent does a task, within some seconds."""
    _, task = running.call("POST", "/tasks", {"title": f"for {name} at {time.time_ns()}", "assignee": name}, token)
    return eventually(lambda: running.call("GET", f"/tasks/{task['data']['id']}", token=token)[1]["data"]["status"] == "done", patience)


TRAPS = ["logs/agent.log", "state.json", "state.json.new", ".state.json.new", "brain.pid", "run.env", "run.lock", "logs/brain.log"]


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "folder"])
@pytest.mark.slow
def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(server, tmp_path, kind):
    running = server()
    token = server.admin(running)
    os.mkfifo(tmp_path / "pipe")
    agent(running, token, "felix")
    for number, name in enumerate(TRAPS):
        place = agent(running, token, f"mallory-{number}") / name
        place.unlink(missing_ok=True)
        {"pipe": lambda: os.mkfifo(place), "folder": place.mkdir, "link to a pipe": lambda: place.symlink_to(tmp_path / "pipe")}[kind]()  # noqa: B023
    assert works(running, token, "felix")
    for number in range(len(TRAPS)):
        for method, verb in (("POST", "/restart"), ("POST", "/stop"), ("POST", "/start"), ("PATCH", "")):
            call = threading.Thread(target=running.call, args=(method, f"/agents/mallory-{number}{verb}", {}, token, 15))
            call.start()
            began = time.monotonic()
            assert len(running.call("GET", "/agents", token=token, timeout=5)[1]["data"]) == 9
            assert time.monotonic() - began < 1, (TRAPS[number], verb)
            call.join(12)
            assert not call.is_alive(), (TRAPS[number], verb)
    assert works(running, token, "felix")
    running.stop()
    running = server()
    assert works(running, token, "felix"), "also after a start"


def test_a_lock_is_never_held_while_a_job_starts(data, monkeypatch):
    """Whoever asks for the status of a job must not wait for another that hangs while it starts."""
    from plugins import supervisor
    from plugins.supervisor import embedded
    hanging, go_on = threading.Event(), threading.Event()

    def spawn(self):
        hanging.set()
        go_on.wait(10)
        raise OSError("it hung, and then it could not be started")
    monkeypatch.setattr(embedded.Job, "_spawn", spawn)
    driver, stop = embedded.Embedded(), threading.Event()
    path = supervisor.write("com.orkosi.x", {"ProgramArguments": ["/bin/true"], "RunAtLoad": True, "StartInterval": 60})
    driver.load(path)
    loop = threading.Thread(target=driver.run, args=(stop,))
    loop.start()
    assert hanging.wait(5)
    began = time.monotonic()
    assert driver.status(path).loaded and time.monotonic() - began < 0.5
    go_on.set()
    stop.set()
    loop.join()


@pytest.mark.slow
def test_a_row_that_cannot_be_loaded_keeps_no_agent_from_starting(server):
    running = server()
    token = server.admin(running)
    agent(running, token, "felix")
    long = {"name": "x", "agent_name": "x", "type": "launchagent", "path": "jobs/" + "x" * 300 + ".plist"}
    status, refused = running.call("POST", "/automations", long, token)
    assert status == 400 and refused["error"]["details"][0]["field"] == "path"
    assert running.call("GET", "/automations", token=token)[1]["meta"]["total"] == 2
    running.stop()
    con = apsw.Connection(str(running.folder / "orkosi.db"))
    for path in ("jobs/" + "x" * 300 + ".plist", "jobs/" + "y" * 5000, "jobs/\x01.plist", "../" * 500 + "z.plist", "jobs/plain.plist"):
        con.execute("INSERT INTO automations (tenant_id, name, agent_name, type, path, created_at, updated_at) VALUES (1, 'x', 'a', 'launchagent', ?, 'x', 'x')",
                    (path,))
    con.close()
    running = server()
    assert works(running, token, "felix")
    status, listed = running.call("GET", "/automations", token=token)
    assert status == 200 and listed["meta"]["total"] == 7


def open_to_others(folder):
    """What in a folder anybody but its owner may read, write or enter."""
    found = []
    for path in [folder, *Path(folder).rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            found.append(f"{path.relative_to(folder)} {mode & 0o777:o}")
    return found


@pytest.mark.slow
def test_nobody_else_reads_the_data_folder(server, tmp_path):
    """A clone makes data/ as the umask says; and what an older version made, is mended at the next start."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    (folder / ".gitignore").write_text("*")
    old = os.umask(0o022)
    try:
        running = server(folder=folder)
        token = server.admin(running)
        agent(running, token, "felix")
        works(running, token, "felix")
        running.call("POST", "/products", {"name": "Lighthouse"}, token)
        running.call("POST", "/auth/forgot-password", {"email": "root@example.com"})
        eventually(lambda: list((folder / "outbox").glob("*.eml")))
        assert eventually(lambda: not [one for one in open_to_others(folder) if "workspace/brain" not in one]), open_to_others(folder)
        running.stop()
        outside = tmp_path / "outside"
        outside.write_text("mine")
        outside.chmod(0o644)
        (folder / "agents/felix/workspace/link").symlink_to(outside)
        os.link(outside, folder / "agents/felix/workspace/hard")
        for path in [folder, *folder.rglob("*")]:
            if not path.is_symlink() and path.name != "hard":
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        assert len(open_to_others(folder)) > 20
        running = server(folder=folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        eventually(lambda: [one for one in open_to_others(folder) if "hard" not in one] == [])
        assert outside.stat().st_mode & 0o777 == 0o644, "what a link leads to is not ours"
        assert os.access(folder / "agents/felix/run.sh", os.X_OK) and works(running, token, "felix")
    finally:
        os.umask(old)


def test_a_command_makes_nothing_that_others_read(tmp_path):
    subprocess.run(["/bin/sh", "-c", f"umask 022; echo 'correct horse battery' | python3 {HOME}/orkosi.py user add a@example.com --password-stdin --data {tmp_path}/d"],
                   check=True, capture_output=True, env=os.environ | {"ORKOSI_NO_INSTALL": "1", "PATH": f"{HOME}/.venv/bin:{os.environ['PATH']}"})
    assert open_to_others(tmp_path / "d") == []
