"""The doctor: everything that an owner would look at, found from outside, with its cure; and nothing changed that was not asked for."""
import json
import os
import shutil
import socket
import subprocess
import sys

import apsw
import pytest
from conftest import HOME, complaints, eventually

from plugins.service import bundle


def doctor(folder, *arguments, key=None, by=(), **env):
    done = subprocess.run([*by, sys.executable, f"{HOME}/orkosi.py", "doctor", "--json", "--data", str(folder), *arguments], capture_output=True, text=True,
                          env={name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")}
                          | {"ORKOSI_NO_INSTALL": "1", "ORKOSI_MASTER_KEY_FILE": str(key or folder.parent / "master.key")} | env)
    assert complaints(done) == "", done.stderr
    return done.returncode, json.loads(done.stdout)


def about(found, name, state):
    return [one for one in found if one["name"] == name and one["state"] == state]


@pytest.mark.slow
def test_a_company_that_is_well_and_what_is_seen_when_it_is_not(server, tmp_path):
    key = tmp_path / "master.key"
    running = server(env={"ORKOSI_MASTER_KEY_FILE": str(key)})
    admin = server.admin(running)
    running.call("POST", "/agents", {"name": "felix", "command": ["/bin/cat"]}, admin)
    eventually(lambda: not running.call("GET", "/agents/felix", token=admin)[1]["data"]["process"]["pid"], patience=20)
    code, found = doctor(running.folder, "--full")
    assert (code, [one for one in found if one["state"] == "fail"]) == (0, []), found
    assert {one["name"] for one in found} == {"python", "wheels", "folder", "disk", "clock", "database", "secrets", "health", "server", "agents", "backups", "mail", "integrity"}
    assert running.url in about(found, "server", "ok")[0]["detail"] and about(found, "agents", "ok")[0]["detail"] == "1 of this machine"
    assert {one["detail"] for one in about(found, "integrity", "ok")} == {"every page of main is whole", "every page of logs is whole"}
    assert "there is none yet" in about(found, "backups", "warn")[0]["detail"] and "backup create" in about(found, "backups", "warn")[0]["cure"]
    assert any("recovery key" in one["detail"] for one in about(found, "health", "warn"))

    (running.folder / "keys/felix").chmod(0o644)
    running.folder.chmod(0o755)
    code, found = doctor(running.folder)
    assert code == 1 and "keys/felix" in about(found, "secrets", "fail")[0]["detail"] and "chmod 600" in about(found, "secrets", "fail")[0]["cure"]
    assert "can be read by others" in about(found, "folder", "warn")[0]["detail"]
    running.folder.chmod(0o755)
    code, found = doctor(running.folder, "--fix")
    assert code == 0 and sum(one["detail"].startswith("mended") for one in found) == 2
    assert (running.folder / "keys/felix").stat().st_mode & 0o77 == 0 and running.folder.stat().st_mode & 0o77 == 0

    (running.folder / "keys/felix").rename(tmp_path / "kept")
    key.rename(tmp_path / "kept.key")
    code, found = doctor(running.folder)
    assert code == 1 and any("rekey felix" in one["cure"] for one in about(found, "agents", "fail"))
    assert any("is not there" in one["detail"] for one in about(found, "health", "fail"))
    running.stop()
    (tmp_path / "kept.key").rename(key)
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, found = doctor(running.folder, ORKOSI_PORT=str(other.getsockname()[1]))
    assert code == 1 and "another program listens" in about(found, "server", "fail")[0]["detail"]
    assert "does not run" in about(found, "server", "warn")[0]["detail"]


def test_without_a_folder_it_says_so_and_makes_none(tmp_path):
    code, found = doctor(tmp_path / "nowhere")
    assert code == 1 and "there is no data folder" in about(found, "folder", "fail")[0]["detail"] and not (tmp_path / "nowhere").exists()


def test_a_database_that_is_none_or_of_another_version_is_left_alone(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "orkosi.db").write_bytes(b"no database" * 1000)
    code, found = doctor(folder)
    assert code == 1 and "does not open" in about(found, "database", "fail")[0]["detail"] and "restore" in about(found, "database", "fail")[0]["cure"]
    for version, said in [(3, "the next start upgrades it"), (10_000, "start the newer version")]:
        (folder / "orkosi.db").unlink()
        con = apsw.Connection(str(folder / "orkosi.db"))
        con.execute(f"PRAGMA application_id = {0x4F524B31}; PRAGMA user_version = {version}; CREATE TABLE x (y)").fetchall()
        con.close()
        raw = (folder / "orkosi.db").read_bytes()
        code, found = doctor(folder)
        assert said in about(found, "database", "warn")[0]["cure"] and (folder / "orkosi.db").read_bytes() == raw


@pytest.fixture
def stopped(blank, tmp_path):
    """A data folder that nobody serves, and with something in it."""
    return shutil.copytree(blank, tmp_path / "data")


def overwrite(file, at, raw):
    with open(file, "r+b") as opened:
        opened.seek(at)
        opened.write(raw)


@pytest.mark.parametrize("name", ["orkosi.db", "logs.db"])
def test_damage_in_the_middle_is_found_and_said_of_which_file(stopped, name):
    raw = (stopped / name).read_bytes()
    at = len(raw) // 2 // 4096 * 4096
    overwrite(stopped / name, at, bytes(255 - byte for byte in raw[at:at + 4096]))
    code, found = doctor(stopped, "--full")
    damaged, = about(found, "integrity", "fail")
    assert code == 1 and damaged["detail"].startswith(f"{stopped / name}: ") and "orkosi.py restore" in damaged["cure"]
    assert len(about(found, "integrity", "ok")) == 1, "the other one is whole"


def test_a_table_that_a_check_asks_for_is_damaged(stopped):
    con = apsw.Connection(str(stopped / "orkosi.db"))
    roots = con.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'agents' AND rootpage > 0").fetchall()
    con.close()
    for root, in roots:
        overwrite(stopped / "orkosi.db", (root - 1) * 4096, b"\xa5" * 4096)
    code, found = doctor(stopped)
    assert code == 1 and "doctor --full" in about(found, "agents", "fail")[0]["cure"] and about(found, "backups", "warn")


def test_a_file_of_logs_that_is_none_is_named(stopped):
    overwrite(stopped / "logs.db", 0, b"this is no database at all" * 10)
    code, found = doctor(stopped, "--full")
    damaged, = about(found, "database", "fail")
    assert code == 1 and damaged["detail"].startswith(f"{stopped / 'logs.db'} does not open: ") and "orkosi.py restore" in damaged["cure"]
    assert "health, agents and backups were not looked at" in damaged["detail"] and str(stopped / "logs.db") in about(found, "integrity", "fail")[0]["detail"]


@pytest.mark.parametrize("name", ["orkosi.db", "logs.db"])
def test_a_file_that_may_not_be_written_is_named(stopped, name, ordinary):
    (stopped / name).chmod(0o400)
    code, found = doctor(stopped, by=ordinary)
    refused, = about(found, "database", "fail")
    assert code == 1 and refused["detail"] == f"{stopped / name} cannot be written" and refused["cure"].startswith(f"chmod u+w '{stopped / name}'")
    assert sorted(path.name for path in stopped.glob("*.db*")) == ["logs.db", "orkosi.db"], "none was made that may not be written, either"
    code, found = doctor(stopped, "--fix", by=ordinary)
    assert code == 0 and f"mended: {stopped / name} can be written again" in [one["detail"] for one in found]
    assert (stopped / name).stat().st_mode & 0o777 == 0o600


def test_what_was_left_beside_it_and_may_not_be_written_is_no_full_disk(stopped, ordinary, tmp_path):
    con = apsw.Connection(str(stopped / "orkosi.db"))
    con.execute("UPDATE tenants SET name = name")
    wal = (stopped / "orkosi.db-wal").read_bytes()
    con.close()
    left = stopped / "orkosi.db-wal"
    left.write_bytes(wal)
    left.chmod(0o400)
    run = lambda *words: subprocess.run([*ordinary, sys.executable, f"{HOME}/orkosi.py", *words, "--data", str(stopped)], capture_output=True, text=True,  # noqa: E731
                                        input="correct horse battery\n", env=os.environ | {"ORKOSI_NO_INSTALL": "1", "ORKOSI_MASTER_KEY_FILE": str(tmp_path / "master.key")})
    add = ("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin")
    refused = run(*add)
    assert refused.returncode and complaints(refused).startswith(f"orkosi: {left} cannot be written: chmod u+w '{left}'"), refused.stderr
    code, found = doctor(stopped, by=ordinary)
    assert code == 1 and about(found, "database", "fail")[0]["detail"] == f"{left} cannot be written"
    code, found = doctor(stopped, "--fix", by=ordinary)
    assert code == 0 and run(*add).returncode == 0


def test_what_is_taken_for_granted_about_a_mac_is_listed_with_how_to_see_it(tmp_path):
    code, found = doctor(tmp_path, "--mac")
    assert len(found) >= 15 and all(one["name"] and one["command"] and one["otherwise"] for one in found)
    assert code == 0 if sys.platform != "darwin" else True
    assert {one["state"] for one in found} == ({None} if sys.platform != "darwin" else {"ok", "fail"} & {one["state"] for one in found})
    for one in found:
        assert subprocess.run(["/bin/sh", "-n", "-c", one["command"]], capture_output=True).returncode == 0, one


def test_wheels_that_do_not_fit_are_named(tmp_path):
    ours = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert bundle.missing_wheels(tmp_path) == bundle.pins()
    here, elsewhere = ("macosx_11_0_arm64", "manylinux_2_28_x86_64")[::1 if sys.platform == "darwin" else -1]
    kinds = {"apsw": (ours, ours, here), "msgspec": (ours, ours, elsewhere), "cffi": ("cp310", "cp310", here), "cryptography": ("cp311", "abi3", here)}
    for pin in bundle.pins():
        name, version = pin.split("==")
        tags = kinds.get(name, ("py3", "none", "any"))
        (tmp_path / f"{name.replace('-', '_')}-{version}-{'-'.join(tags)}.whl").touch()
    assert sorted(pin.split("==")[0] for pin in bundle.missing_wheels(tmp_path)) == ["cffi", "msgspec"]
