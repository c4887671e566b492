"""Standby: a copy by the minute, over ssh or on a mounted disk, that takes over; and never two that serve."""
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from browser import required
from conftest import HOME, eventually

from orkosi import Conflict, Invalid, now, seconds, settings
from plugins import standby
from plugins.backups import epochs, making
from plugins.standby import pulling
from plugins.standby import source as sources


def run(folder, *arguments, key=None, stdin="", check=True, **more):
    """A command on a data folder, on a machine of its own: with another home, and none of our settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")} | {"ORKOSI_NO_INSTALL": "1"} | more
    done = subprocess.run([sys.executable, f"{HOME}/orkosi.py", *arguments, "--data", str(folder)], capture_output=True, text=True, input=stdin,
                          env=environment | {"ORKOSI_MASTER_KEY_FILE": str(key or folder.parent / "master.key")}, timeout=120)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def rows(folder):
    """Every row of every table of a data folder that nobody serves, but for what changes by the second."""
    found = {}
    for name in making.DATABASES:
        con = apsw.Connection(str(folder / name), flags=apsw.SQLITE_OPEN_READONLY)
        for (table,) in con.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage AND name NOT LIKE '%fts%'").fetchall():
            found[f"{name}/{table}"] = sorted(map(str, con.execute(f'SELECT * FROM "{table}"')))
        con.close()
    return found


def tree(folder):
    """What the folders of agents and products hold: contents, permissions, times."""
    found = {}
    for known, path in ((known, folder / known) for name in making.FOLDERS for known, _, _ in making.walk(folder, name)):
        if path.is_symlink():
            found[known] = os.readlink(path)
        elif path.is_dir():
            found[known] = "folder"
        elif path.is_file():
            found[known] = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode & 0o100)
    return found


@pytest.fixture
def origin(tmp_path):
    """A data folder with something in it, which nobody serves; another master key than this machine's."""
    folder = tmp_path / "origin" / "data"
    run(folder, "user", "add", "a@example.com", "--username", "a", "--role", "admin", "--password-stdin", stdin="correct horse battery\n")
    (folder / "agents/x/workspace/deep/er").mkdir(parents=True)
    (folder / "agents/x/workspace/deep/er/note.md").write_text("first")
    (folder / "agents/x/runs").mkdir()
    (folder / "agents/x/runs/log").write_text("left out")
    (folder / "orkosi.toml").write_text("# mine\n")
    return folder


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "second machine" / "the data"


# ── pulling ──


def test_a_pull_makes_a_copy_and_the_next_one_what_has_changed(origin, copy):
    prices = shutil.copy(HOME / "plugins/billing/prices.toml", origin / "billing.toml")
    said = run(copy, "standby", "pull", str(origin)).stdout
    assert "orkosi.db, logs.db, 3 files, 0 taken away" in said and (copy / "billing.toml").read_bytes() == prices.read_bytes()
    assert rows(copy) == rows(origin) and tree(copy) == tree(origin) and (copy / "orkosi.toml").read_text() == "# mine\n"
    assert not (copy / "agents/x/runs").exists() and not (copy / "keys").exists()
    assert {oct(path.stat().st_mode & 0o077) for path in copy.rglob("*")} == {"0o0"}
    assert "no database, 0 files, 0 taken away" in run(copy, "standby", "pull").stdout
    run(origin, "user", "add", "b@example.com", "--username", "b", "--role", "viewer", "--password-stdin", stdin="correct horse battery\n")
    note = origin / "agents/x/workspace/deep/er/note.md"
    state = note.stat()
    note.write_text("again")  # of the same length
    os.utime(note, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    (origin / "agents/x/workspace/new").write_bytes(os.urandom(3 << 20))
    assert "orkosi.db, 2 files, 0 taken away" in run(copy, "standby", "pull").stdout
    assert rows(copy) == rows(origin) and tree(copy) == tree(origin)


@pytest.mark.slow
def test_whatever_a_workspace_becomes_the_copy_becomes_too(origin, copy):
    run(copy, "standby", "pull", str(origin))
    place, other = origin / "agents/x/workspace", copy / "agents/x/workspace"
    shutil.rmtree(place / "deep")
    (place / "deep").write_text("a file where a folder was")
    (place / "out").symlink_to("/etc")
    (place / "empty/folder").mkdir(parents=True)
    (place / b"caf\xe9".decode("utf-8", "surrogateescape")).write_text("no UTF-8")
    (place / ("long" * 60)).write_text("a long name")
    (place / "tool").write_text("#!/bin/sh\n")
    (place / "tool").chmod(0o755)
    os.mkfifo(place / "pipe")
    os.link(origin / "orkosi.db", place / "stolen")
    run(copy, "standby", "pull")
    before = tree(origin)
    before.pop("agents/x/workspace/pipe", None)
    copied = tree(copy)
    # Another process may open the database's file without harm; where this one serves it, `making.add` leaves it out.
    assert {name: one for name, one in copied.items() if not name.endswith("stolen")} == {
        name: one for name, one in before.items() if not name.endswith("stolen")}
    assert not (other / "pipe").exists()
    (place / "out").unlink()
    (place / "out").mkdir()
    (place / "out/passwd").write_text("mine")
    (place / "stolen").unlink()
    run(copy, "standby", "pull")
    assert (other / "out/passwd").read_text() == "mine" and not (other / "out").is_symlink() and not (other / "stolen").exists()


def test_a_copy_is_not_opened_by_anything_else(origin, copy):
    run(copy, "standby", "pull", str(origin))
    before = (copy / "orkosi.db").read_bytes()
    for words in (["serve", "--port", "0"], ["user", "list"], ["backup", "create"], ["vault", "status"]):
        refused = run(copy, *words, check=False)
        assert refused.returncode and f"is a standby of {origin}" in refused.stderr and "standby promote" in refused.stderr, words
    assert (copy / "orkosi.db").read_bytes() == before


def test_nothing_that_is_somebodys_own_is_overwritten(origin, tmp_path):
    own = tmp_path / "own" / "data"
    run(own, "user", "add", "me@example.com", "--username", "me", "--role", "admin", "--password-stdin", stdin="correct horse battery\n")
    before = rows(own)
    refused = run(own, "standby", "pull", str(origin), check=False)
    assert refused.returncode and "has a company of its own" in refused.stderr and rows(own) == before and not standby.mark(own)
    nothing = run(tmp_path / "new" / "data", "standby", "pull", check=False)
    assert nothing.returncode and "Say of what" in nothing.stderr
    gone = run(tmp_path / "new" / "data", "standby", "pull", str(tmp_path / "nowhere"), check=False)
    assert gone.returncode and "no data folder of Orkosi" in gone.stderr


@pytest.mark.parametrize("place", ["-oProxyCommand=touch x:y", "", "host:", "a\0b", "a\nb", "host:x\ny"])
def test_a_place_that_is_none_is_refused(place):
    with pytest.raises(Invalid, match="is no folder"):
        sources.Source(place)


def test_what_another_machine_s_disk_holds_is_not_opened_from_here(tmp_path, monkeypatch):
    for device in ("//me@mini/orkosi", "mini:/Users/me/orkosi"):
        (tmp_path / "df").write_text(f"#!/bin/sh\necho 'Filesystem 512-blocks Used Available Capacity Mounted on'\necho '{device} 1 1 1 1% /Volumes/x'\n")
        (tmp_path / "df").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(Invalid, match="cannot be read safely"):
            sources.Source(str(tmp_path))


def test_what_was_listed_below_a_link_is_not_written_through_it(origin, copy, tmp_path, monkeypatch):
    """An agent put a link in the place of a folder while that was listed: what is below it would go wherever it leads, here."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "keys").write_text("of this machine")
    (origin / "agents/x/workspace/trap").symlink_to(elsewhere)
    monkeypatch.setitem(settings.values, "data", copy)
    source = sources.Source(str(origin))
    honest = source.offer

    def forged(*arguments):
        offered = honest(*arguments)
        for name in ("keys", "deep/keys"):
            offered.files[f"agents/x/workspace/trap/{name}"] = ["f", 0o600, 5, 1, ""]
        offered.files["agents/x/workspace/trap/deep"] = ["d", 0o700, 0, 0, ""]
        return offered
    monkeypatch.setattr(source, "offer", forged)
    pulling.pull(source)
    assert (copy / "agents/x/workspace/trap").is_symlink() and (elsewhere / "keys").read_text() == "of this machine"
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["deep", "keys"]


@pytest.mark.slow
def test_a_pull_that_is_killed_at_any_moment_is_finished_by_the_next(origin, copy):
    """Never half of a database, and never a folder that would serve."""
    chance = random.Random(4)
    con = apsw.Connection(str(origin / "logs.db"))
    con.execute("CREATE TABLE ballast (id INTEGER PRIMARY KEY, raw BLOB)").fetchall()
    for number in range(12):
        con.execute("INSERT INTO ballast (raw) SELECT randomblob(200000) FROM json_each('[1,2,3,4,5,6,7,8]')").fetchall()
        (origin / f"agents/x/workspace/file{number}").write_bytes(chance.randbytes(500_000))
        process = subprocess.Popen([sys.executable, f"{HOME}/orkosi.py", "standby", "pull", str(origin), "--data", str(copy)], start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
        time.sleep(chance.uniform(0.1, 0.9))  # the moment is the point
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name in making.DATABASES:
            if (copy / name).exists() and (copy / name).stat().st_size:
                found = apsw.Connection(str(copy / name))
                found.set_busy_timeout(5000)  # whoever was killed with it may not be quite gone
                assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                found.close()
        assert standby.mark(copy) or not (copy / "orkosi.db").exists()
    con.close()
    run(copy, "standby", "pull", str(origin))
    assert rows(copy) == rows(origin) and tree(copy) == tree(origin)
    assert not list(copy.rglob("*.pulling"))


# ── who serves ──


@pytest.mark.slow
def test_the_one_that_was_copied_serves_no_more_once_the_copy_was_promoted(origin, copy):
    run(copy, "standby", "pull", str(origin))
    (origin / "agents/x/workspace/late").write_text("after the last pull")
    key = origin.parent / "master.key"
    said = run(copy, "standby", "promote", key=key)
    assert "serves no more" in said.stderr and "nothing of it is lost" in said.stderr and "(epoch 2)" in said.stdout
    assert (copy / "agents/x/workspace/late").read_text() == "after the last pull"
    assert epochs.of(copy) == 2 and epochs.of(origin) == 1 and not standby.mark(copy)
    refused = run(origin, "serve", "--port", "0", check=False)
    assert refused.returncode == 5 and refused.stderr.count("\n") == 1 and f"{copy} was promoted" in refused.stderr and "epoch 2" in refused.stderr
    run(origin, "user", "list")  # to look is allowed
    again = run(copy, "standby", "pull", str(origin), check=False)
    assert again.returncode and "was promoted" in again.stderr
    # And back: the first one takes over again, when it is told to.
    assert "once it is off" in run(origin, "standby", "promote", check=False).stderr
    run(origin, "standby", "promote", "--anyway")
    assert epochs.of(origin) == 3 and not standby.superseded_by(origin)


def test_the_first_one_sees_it_in_the_folder_that_it_was_copied_into(origin, copy):
    """Where the copy lies on a disk that both see, and the first one's own folder could not be written."""
    run(copy, "standby", "pull", str(origin))
    epochs.keep(copy, 2)
    assert not standby.superseded_by(origin)  # as long as it is a copy
    (copy / standby.MARK).unlink()
    assert standby.superseded_by(origin)["epoch"] == 2
    assert run(origin, "serve", "--port", "0", check=False).returncode == 5


def test_a_copy_that_is_not_whole_is_not_promoted_and_nobody_is_told(origin, copy):
    run(copy, "standby", "pull", str(origin))
    raw = bytearray((copy / "orkosi.db").read_bytes())
    raw[4096 * 5:4096 * 6] = b"\xff" * 4096
    (copy / "orkosi.db").write_bytes(raw)
    refused = run(copy, "standby", "promote", key=origin.parent / "master.key", check=False)
    assert refused.returncode and "orkosi.db in it" in refused.stderr and not standby.superseded_by(origin) and standby.mark(copy)


@pytest.mark.slow
def test_without_its_key_a_copy_wants_the_recovery_key_before_anybody_is_told(origin, copy, server):
    server(folder=origin, env={"ORKOSI_MASTER_KEY_FILE": str(origin.parent / "master.key")}).stop()  # a server makes the vault
    run(copy, "standby", "pull", str(origin))
    recovery = run(origin, "vault", "recovery-key").stdout.strip()
    refused = run(copy, "standby", "promote", check=False)
    assert refused.returncode and "recovery key" in refused.stderr and not standby.superseded_by(origin)
    wrong = run(copy, "standby", "promote", "--recovery-key-stdin", stdin=f"{recovery[:-1]}{'Y' if recovery[-1] == 'X' else 'X'}\n", check=False)
    assert wrong.returncode and not standby.superseded_by(origin)
    run(copy, "standby", "promote", "--recovery-key-stdin", stdin=f"{recovery}\n")
    assert "Open, with" in run(copy, "vault", "status").stdout and (copy.parent / "master.key").exists()


def test_where_nobody_can_be_told_it_must_be_said_that_the_old_one_is_off_and_it_is_told_later(origin, copy, server):
    run(copy, "standby", "pull", str(origin))
    aside = origin.with_name("unplugged")
    os.rename(origin, aside)
    key = origin.parent / "master.key"
    refused = run(copy, "standby", "promote", key=key, check=False)
    assert refused.returncode and "two must never serve at once" in refused.stderr and standby.mark(copy) and epochs.of(copy) == 1
    run(copy, "standby", "promote", "--anyway", key=key)
    assert epochs.of(copy) == 2
    os.rename(aside, origin)
    assert not epochs.facts(origin, standby.SUPERSEDED)
    server(folder=copy, env={"ORKOSI_MASTER_KEY_FILE": str(key)})
    eventually(lambda: epochs.facts(origin, standby.SUPERSEDED).get("epoch") == 2 and not (copy / "to_tell.json").exists(), patience=20)


def test_a_server_that_serves_ends_by_itself(origin, copy, server):
    running = server(folder=origin, env={"ORKOSI_MASTER_KEY_FILE": str(origin.parent / "master.key")})
    run(copy, "standby", "pull", str(origin))
    began = time.monotonic()
    run(copy, "standby", "promote", key=origin.parent / "master.key")
    assert running.process.wait(10) == 0 and time.monotonic() - began < 20
    assert "serves no more" in running.process.stdout.read()
    assert rows(copy) == rows(origin)


def test_health_tells_of_a_standby_that_makes_no_more_copies(data):
    assert standby.health().ok and "none" in standby.health().detail
    sources.note_pull("mini2", "", "")
    assert standby.health().ok and "no time yet" in standby.health().detail
    sources.note_pull("mini2", now(-standby.LATE - 5), "")
    assert not standby.health().ok and "standby forget" in standby.health().detail
    sources.note_pull("mini2", now(-60), "")
    assert standby.health().ok and "mini2" in standby.health().detail


# ── the remote ──


@pytest.fixture
def remote(tmp_path, monkeypatch):
    required("git", "git")
    place = tmp_path / "remote.git"
    subprocess.run(["git", "init", "--bare", "-q", str(place)], check=True)
    return place


@pytest.mark.slow
def test_an_old_server_that_only_sees_the_remote_learns_of_it_there(origin, copy, server, remote):
    key = origin.parent / "master.key"
    env = {"ORKOSI_BACKUP_REMOTE": str(remote)}
    run(copy, "standby", "pull", str(origin))
    aside = origin.with_name("unplugged")
    os.rename(origin, aside)
    said = run(copy, "standby", "promote", key=key, **env)
    assert "knows of epoch 2" in said.stderr and "could not be told" in said.stderr
    (copy / epochs.FILE).rename(copy.parent / "kept")  # what the other machine cannot see
    os.rename(aside, origin)
    refused = run(origin, "serve", "--port", "0", check=False, **env)
    assert refused.returncode == 5 and "what pushes to" in refused.stderr
    os.rename(remote, remote.with_name("down"))
    assert run(origin, "serve", "--port", "0", check=False, **env).returncode == 5  # it has noted that


def test_a_server_that_serves_looks_at_the_remote_too(origin, server, remote, data, monkeypatch):
    monkeypatch.setitem(settings.values, "backup_remote", str(remote))
    assert epochs.of_remote(str(remote)) == 1
    epochs.raise_at(str(remote), 2)
    running = server(folder=origin, env={"ORKOSI_MASTER_KEY_FILE": str(origin.parent / "master.key"), "ORKOSI_BACKUP_REMOTE": str(remote)})
    assert running.process.wait(20) == 0
    assert epochs.facts(origin, standby.SUPERSEDED)["epoch"] == 2


def test_two_that_raise_it_at_once_cannot_both(remote, data, monkeypatch, tmp_path):
    monkeypatch.setitem(settings.values, "backup_remote", str(remote))
    epochs.raise_at(str(remote), 2)
    with pytest.raises(Conflict, match="in epoch 2 already"):
        epochs.raise_at(str(remote), 2)
    epochs.raise_at(str(remote), 3)
    assert subprocess.run(["git", "-C", str(remote), "branch", "--list"], capture_output=True, text=True).stdout.split() == ["backups-epoch-3"]
    looks = iter([1, 3])
    monkeypatch.setattr(epochs, "of_remote", lambda url: next(looks))  # both looked before either wrote
    monkeypatch.setitem(settings.values, "data", tmp_path / "another")
    (tmp_path / "another").mkdir()
    with pytest.raises(Conflict, match="in epoch 3 by now"):
        epochs.raise_at(str(remote), 3)


@pytest.mark.slow
def test_what_is_restored_on_purpose_takes_the_epoch_of_the_remote(origin, remote, data, monkeypatch):
    key = origin.parent / "master.key"
    env = {"ORKOSI_BACKUP_REMOTE": str(remote)}
    name = run(origin, "backup", "create", **env).stdout.split(":")[0]
    run(origin, "backup", "push", **env)
    monkeypatch.setitem(settings.values, "backup_remote", str(remote))
    epochs.raise_at(str(remote), 4)
    run(origin, "restore", name, "--yes", key=key, **env)
    assert epochs.of(origin) == 4
    fresh = origin.parent / "fresh"
    run(fresh, "restore", "--remote", str(remote), "--yes", key=key)
    assert epochs.of(fresh) == 4


# ── over ssh ──


@pytest.fixture
def machine(tmp_path):
    """A real sshd on loopback, for one key, and the program that goes there. What it gives is the folder of an Orkosi there."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    required("ssh", "ssh")
    if not program:
        required("sshd", "sshd")
    place = tmp_path / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (place / "config").write_text(f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\nStrictModes no\n"
                                  f"UsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n")
    process = subprocess.Popen([program, "-D", "-e", "-f", str(place / "config")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (place / "go").write_text(f"#!/bin/sh\nexec ssh -F none -p {port} -i {place}/user -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
                              f"-o UserKnownHostsFile={place}/known -o LogLevel=ERROR \"$@\"\n")
    (place / "go").chmod(0o755)
    there = tmp_path / "the first machine" / "orkosi"
    (there / ".venv/bin").mkdir(parents=True)
    (there / ".venv/bin/python").write_text(f"#!/bin/sh\nORKOSI_NO_INSTALL=1 ORKOSI_MASTER_KEY_FILE='{there.parent}/master.key' exec {sys.executable} \"$@\"\n")
    (there / ".venv/bin/python").chmod(0o755)
    (there / "orkosi.py").write_text(f"import runpy, sys\nsys.path.insert(0, {str(HOME)!r})\nsys.argv += [] if '--data' in sys.argv else ['--data', {str(there / 'data')!r}]\n"
                                     f"runpy.run_path({str(HOME / 'orkosi.py')!r}, run_name='__main__')\n")

    def knocks():
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", port)) == 0
    eventually(knocks)
    yield {"folder": there, "name": f"{getpass.getuser()}@127.0.0.1:{there}", "ssh": str(place / "go"), "process": process}
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_the_worst_day_from_the_standby(server, machine, copy, remote):
    """Agents at work, copied each second over ssh; the machine is gone; the copy takes over, felix goes on, and the old one may come back."""
    key, there = machine["folder"].parent / "master.key", machine["folder"] / "data"
    env = {"ORKOSI_MASTER_KEY_FILE": str(key), "ORKOSI_BACKUP_REMOTE": str(remote)}
    running = server(folder=there, env=env)
    admin = server.admin(running)
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 1}, admin)
    brain = there / "agents/felix/workspace/brain"
    brain.write_text("#!/bin/sh\necho \"done by $ORKOSI_AGENT with $SHOP_TOKEN\" | sed s/sk_live.*/secret/; echo kept >> diary\n")
    brain.chmod(0o700)
    running.call("POST", "/credentials", {"key": "SHOP_TOKEN", "value": "sk_live_1234567890", "grants": ["felix"]}, admin)
    recovery = run(there, "vault", "recovery-key", key=key).stdout.strip()
    pulling = subprocess.Popen([sys.executable, f"{HOME}/orkosi.py", "standby", "pull", machine["name"], "--ssh", machine["ssh"], "--every", "1",
                                "--data", str(copy)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=os.environ | {"ORKOSI_NO_INSTALL": "1"})
    show = lambda one, id, token: one.call("GET", f"/tasks/{id}", token=token)[1]["data"]  # noqa: E731
    first = running.call("POST", "/tasks", {"title": "Before", "assignee": "felix"}, admin)[1]["data"]["id"]
    eventually(lambda: show(running, first, admin)["status"] == "done", patience=30)
    running.call("POST", "/agents/felix/pause", {}, admin)
    waiting = running.call("POST", "/tasks", {"title": "After", "assignee": "felix", "description": "x" * 1000}, admin)[1]["data"]["id"]
    before = {path: running.call("GET", path, token=admin)[1]["data"] for path in ("/tasks", "/task-queue", "/agent-runs", "/changelog")}
    done = time.time()
    eventually(lambda: standby.mark(copy).get("at", "") and seconds(standby.mark(copy)["at"]) > done + 2, patience=40, every=0.2)
    running.kill()
    machine["process"].terminate()  # the network of that machine, too
    machine["process"].wait()
    pulling.terminate()
    said = pulling.communicate()[0]
    assert "is what" in said and "orkosi.db" in said

    promoted = run(copy, "standby", "promote", "--recovery-key-stdin", stdin=f"{recovery}\n", ORKOSI_BACKUP_REMOTE=str(remote))
    assert "could not be told" in promoted.stderr and "knows of epoch 2" in promoted.stderr
    again = server(folder=copy, env={"ORKOSI_MASTER_KEY_FILE": str(copy.parent / "master.key")})
    admin = again.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    for path, rows_before in before.items():
        strip = lambda found: [{name: value for name, value in row.items() if name not in ("why", "updated_at")} for row in found]  # noqa: E731
        assert strip(again.call("GET", path, token=admin)[1]["data"]) == strip(rows_before), path
    assert again.call("GET", "/credentials/SHOP_TOKEN", token=admin)[1]["data"]["value"] == "sk_live_1234567890"
    again.call("POST", "/agents/felix/resume", {}, admin)
    eventually(lambda: show(again, waiting, admin)["status"] == "done", patience=40)
    assert show(again, waiting, admin)["resolution"] == "done by felix with secret"
    assert (copy / "agents/felix/workspace/diary").read_text() == "kept\nkept\n"
    old = run(there, "serve", "--port", "0", key=key, check=False, ORKOSI_BACKUP_REMOTE=str(remote))
    assert old.returncode == 5 and "serves no more" in old.stderr


@pytest.mark.slow
def test_over_ssh_a_first_one_that_answers_is_ended_and_copied_a_last_time(server, machine, copy):
    key, there = machine["folder"].parent / "master.key", machine["folder"] / "data"
    running = server(folder=there, env={"ORKOSI_MASTER_KEY_FILE": str(key)})
    admin = server.admin(running)
    run(copy, "standby", "pull", machine["name"], "--ssh", machine["ssh"])
    run(copy, "standby", "pull", f"{machine['name']}/data", "--ssh", machine["ssh"])  # the data folder itself
    assert "copied by" in run(there, "standby", "status", key=key).stdout
    running.call("POST", "/tasks", {"title": "The very last"}, admin)
    said = run(copy, "standby", "promote", key=key)
    assert "nothing of it is lost" in said.stderr and running.process.wait(5) == 0
    assert rows(copy) == rows(there)
    assert run(there, "serve", "--port", "0", key=key, check=False).returncode == 5


def test_a_machine_that_does_not_answer_is_said_to(machine, copy):
    nobody = run(copy, "standby", "pull", machine["name"] + "x", "--ssh", machine["ssh"], check=False)
    assert nobody.returncode and machine["name"] in nobody.stderr
    machine["process"].terminate()
    machine["process"].wait()
    gone = run(copy, "standby", "pull", machine["name"], "--ssh", machine["ssh"], check=False)
    assert gone.returncode and "refused" in gone.stderr and gone.stderr.count("\n") == 1
    none = run(copy, "standby", "pull", "host:x", "--ssh", "/nowhere/ssh", check=False)
    assert none.returncode and "No such file" in none.stderr


# ── launchd ──


@pytest.mark.slow
def test_launchd_pulls_each_minute_until_it_is_promoted(origin, copy, launchctl, tmp_path, monkeypatch):
    environment = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "ORKOSI_SUPERVISOR": "launchd"}
    said = run(copy, "standby", "pull", str(origin), "--install", **environment)
    assert "launchd has this pulled each minute" in said.stdout
    made = list((tmp_path / "home/Library/LaunchAgents").glob("com.orkosi.*.standby.plist"))
    assert len(made) == 1
    eventually(lambda: (tmp_path / f"home/Library/Logs/{made[0].stem}.log").exists() and "no database" in (
        tmp_path / f"home/Library/Logs/{made[0].stem}.log").read_text(), patience=20)
    run(copy, "standby", "promote", key=origin.parent / "master.key", **environment)
    assert not list((tmp_path / "home/Library/LaunchAgents").glob("*.standby.plist"))
    assert any(call[0] == "bootout" and "standby" in call[1] for call in launchctl())
