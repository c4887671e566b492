"""What can be wrong at the start, and while the disk fills: one clear sentence each, and nothing lost."""
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from conftest import HOME, Server, command, complaints


def serve(folder, *arguments, **more):
    """Run `serve` where it must not come up; the finished process."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), "serve", "--port", "0", "--data", str(folder), *arguments],
                          capture_output=True, text=True, timeout=30, env=os.environ | {"ORKOSI_NO_INSTALL": "1"}, **more)
    done.took = time.monotonic() - began
    return done


def one_sentence(done, *words):
    assert done.returncode != 0 and "Traceback" not in done.stderr
    lines = [line for line in complaints(done).splitlines() if line.strip()]
    assert len(lines) == 1 and all(word in lines[0] for word in words), done.stderr


@pytest.mark.slow
def test_a_second_server_leaves_at_once(server, tmp_path):
    running = server()
    second = serve(running.folder)
    one_sentence(second, "Another Orkosi")
    assert second.returncode == 3 and second.took < 2
    running.kill()
    assert server(folder=running.folder).call("GET", "/ready")[0] == 200


def test_a_port_in_use(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        one_sentence(serve(tmp_path / "data", "--port", str(port)), str(port), "--port")


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    one_sentence(serve(tmp_path / "file" / "data"), "cannot be written", "--data")


@pytest.mark.parametrize("damage", [b"\0" * 4096, b"this is no database at all" * 200])
@pytest.mark.slow
def test_a_damaged_database(server, tmp_path, damage):
    running = server()
    running.stop()
    file = running.folder / "orkosi.db"
    content = file.read_bytes()
    file.write_bytes(damage + content[len(damage):])
    one_sentence(serve(running.folder), str(running.folder))
    file.write_bytes(content)
    assert server(folder=running.folder).call("GET", "/ready")[0] == 200


def test_somebody_elses_database(tmp_path):
    (tmp_path / "data").mkdir()
    con = apsw.Connection(str(tmp_path / "data" / "orkosi.db"))
    con.execute("PRAGMA application_id = 42; CREATE TABLE mine (x)")
    con.close()
    one_sentence(serve(tmp_path / "data"), "some other program")


@pytest.mark.slow
def test_a_file_newer_than_the_code(server):
    running = server()
    running.stop()
    con = apsw.Connection(str(running.folder / "orkosi.db"))
    con.execute("PRAGMA user_version = 9999")
    con.close()
    one_sentence(serve(running.folder), "newer Orkosi")


@pytest.mark.parametrize("content, word", [("port = 'x'", "port"), ("prot = 1", "prot"), ("port = ", "orkosi.toml")])
def test_wrong_settings(tmp_path, content, word):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "orkosi.toml").write_text(content)
    done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), "serve", "--data", str(tmp_path / "data")], capture_output=True,
                          text=True, timeout=30, env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
    one_sentence(done, word)


def old_pythons():
    found = [shutil.which(f"python3.{minor}") for minor in (8, 9, 10)]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.[89]*/bin/python3")]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.10*/bin/python3")]
    return [one for one in found if one]


@pytest.mark.skipif(not old_pythons(), reason="no Python older than 3.11 on this machine")
def test_an_old_python_is_told_so():
    for python in old_pythons():
        done = subprocess.run([python, str(HOME / "orkosi.py"), "serve"], capture_output=True, text=True)
        if "pyenv" in done.stderr and "command" in done.stderr:
            continue  # a shim without that version behind it
        one_sentence(done, "3.11 or newer")


@pytest.mark.slow
def test_no_network_at_the_first_start(tmp_path):
    for name in ("orkosi.py", "pyproject.toml"):
        shutil.copy(HOME / name, tmp_path / name)
    env = {key: value for key, value in os.environ.items() if key not in ("ORKOSI_NO_INSTALL", "PYTHONPATH", "VIRTUAL_ENV")}
    base = Path(sys.base_prefix) / "bin" / "python3"
    done = subprocess.run([str(base), str(tmp_path / "orkosi.py"), "settings"], capture_output=True, text=True, timeout=120,
                          env=env | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "could not install" in last and "wheels" in last


@pytest.mark.slow
def test_too_little_free_space_stops_writes_and_nothing_else(server):
    running = server()
    token = server.admin(running)
    running.stop()
    full = server(folder=running.folder, env={"ORKOSI_MIN_FREE_MB": str(10**9)})
    status, answer = full.call("POST", "/tasks", {"title": "x"}, token)
    assert (status, answer["error"]["code"]) == (507, "no_space")
    assert full.call("GET", "/tasks", token=token)[0] == 200


@pytest.mark.slow
def test_a_full_disk_is_507_and_loses_nothing(tmp_path):
    folder = tmp_path / "data"
    command("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin", folder=folder,
            stdin="correct horse battery\n")
    most = 3 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))  # the child inherits it: its files cannot grow beyond
    try:
        running = Server(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    try:
        token = running.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
        kept, refused = [], 0
        for number in range(60):
            status, answer = running.call("POST", "/task-queue/submit", {"task_type": "t", "payload": {"n": number, "x": "y" * 200_000}}, token)
            if status == 201:
                kept.append(answer["data"]["id"])
            else:
                refused += 1
                assert status == 507, answer
        assert kept and refused
        assert running.call("GET", "/task-queue?limit=1", token=token)[0] == 200
    finally:
        running.kill()
    after = Server(folder)
    try:
        for id in kept:
            assert after.call("GET", f"/task-queue/{id}", token=token)[0] == 200
        assert after.call("POST", "/task-queue/submit", {"task_type": "t"}, token)[0] == 201
    finally:
        after.stop()
