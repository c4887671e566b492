"""A disk that is really full: what was being made is not there, what was there is whole, and with room again all goes on."""
import os
import subprocess
import sys

import pytest
from conftest import Server, command, eventually

SIZE = 24 << 20

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path):
    """A disk of 24 MB."""
    place = tmp_path / "small disk"
    place.mkdir()
    if sys.platform != "linux" or os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place)]).returncode:
        pytest.skip("making a small disk takes Linux and its administrator")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place, leave):
    """Ballast, until so many bytes are left."""
    state = os.statvfs(place)
    (place / "ballast").write_bytes(b"\0" * (state.f_bavail * state.f_frsize - leave))


def test_a_backup_on_a_full_disk_is_not_there_and_the_next_one_is(small):
    running = Server(small / "data", env={"ORKOSI_MIN_FREE_MB": "0"})
    try:
        said = next(line for line in iter(running.process.stdout.readline, "") if "/setup/" in line)
        token = running.call("POST", "/auth/setup", {"token": said.split("/setup/")[1].strip(), "username": "root", "email": "root@example.com",
                                                     "password": "correct horse battery"})[1]["token"]
        (small / "data/products/x").mkdir(parents=True)
        (small / "data/products/x/logo").write_bytes(os.urandom(6 << 20))
        fill(small, 4 << 20)
        assert running.call("POST", "/tasks", {"title": "Before"}, token)[0] == 201
        running.call("POST", "/backups/trigger", None, token)
        told = eventually(lambda: [one for one in running.call("GET", "/notifications", token=token)[1]["data"] if one["title"] == "No backup was made"],
                          patience=30)
        assert "the disk is full" in told[0]["message"]
        assert running.call("GET", "/backups", token=token)[1]["data"] == []
        assert [name for name in os.listdir(small / "data/backups") if not name.startswith(".lock")] == []
        (small / "ballast").unlink()
        name = running.call("POST", "/backups/trigger", None, token)[1]["data"]["filename"]
        eventually(lambda: any(one["verification"] == "ok" for one in running.call("GET", "/backups", token=token)[1]["data"]) or None, patience=60)
        assert name in os.listdir(small / "data/backups")
        assert [one["title"] for one in running.call("GET", "/tasks", token=token)[1]["data"]] == ["Before"]
    finally:
        running.stop()


def test_a_pull_onto_a_full_disk_leaves_a_copy_that_is_whole_and_old(small, tmp_path):
    origin, copy = tmp_path / "origin", small / "copy"
    add = lambda name: command("user", "add", f"{name}@example.com", "--username", name, "--role", "viewer", "--password-stdin",  # noqa: E731
                               folder=origin, stdin="correct horse battery\n")
    add("first")
    command("standby", "pull", str(origin), folder=copy)
    (origin / "products/x").mkdir(parents=True)
    (origin / "products/x/logo").write_bytes(os.urandom(8 << 20))
    add("second")
    fill(small, 3 << 20)
    refused = command("standby", "pull", str(origin), folder=copy, check=False)
    assert refused.returncode and refused.stderr.count("\n") == 1 and "the disk is full" in refused.stderr, refused.stderr
    assert not list((copy / "products").rglob("*logo*"))
    import apsw
    found = apsw.Connection(str(copy / "orkosi.db"), flags=apsw.SQLITE_OPEN_READONLY)
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found.close()
    (small / "ballast").unlink()
    command("standby", "pull", str(origin), folder=copy)
    assert (copy / "products/x/logo").read_bytes() == (origin / "products/x/logo").read_bytes()


