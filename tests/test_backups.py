"""Backups: what cannot be restored is refused, what is hostile harms nobody, and the worst day ends well."""
import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest
from browser import required
from conftest import HOME, eventually
from stories.test_story_backups import made, on, remote, work  # noqa: F401  # fixtures

from orkosi import NoSpace, Unavailable, acting, db, now, seconds, settings, system
from plugins import backups, doctor, users
from plugins.backups import commands, making, restoring, sealed
from plugins.standby import source
from plugins.vault import master


@contextlib.contextmanager
def unpacked(path, place, key=None):
    place.mkdir()
    try:
        yield restoring.unpack(path, place, key or restoring.key_of(path))
    finally:
        shutil.rmtree(place)


def test_a_thousand_flips_are_a_thousand_refusals(client, made, tmp_path):  # noqa: F811
    raw, chance = (settings.data / "backups" / made).read_bytes(), random.Random(7)
    key, path = restoring.key_of(backups.at(made)), tmp_path / "flipped.backup"
    for _ in range(1000):
        flipped = bytearray(raw)
        flipped[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with open(path, "rb") as file, pytest.raises(sealed.Damaged) as refused:
            sealed.Reader(file, key).finish()
        assert len(refused.value.message) > 20
    for cut in (0, 1, 15, 20, 30, len(raw) // 2, len(raw) - 1):
        with pytest.raises(sealed.Damaged):
            sealed.Reader(io.BytesIO(raw[:cut]), key).finish()
    with pytest.raises(sealed.Damaged):
        sealed.Reader(io.BytesIO(raw + b"x"), key).finish()


def test_chunks_cannot_be_moved_left_out_or_taken_from_another(client, tmp_path):
    key = os.urandom(32)

    def written(seed, size=5):
        raw = io.BytesIO()
        writer = sealed.Writer(raw, {"kek_id": "k", "salt": "00" * 16, "seed": seed}, key)
        writer.write(random.Random(seed).randbytes(size << 20))
        writer.close()
        return raw.getvalue()
    whole, other = written(1), written(2)
    start = len(sealed.MAGIC) + 4 + int.from_bytes(whole[len(sealed.MAGIC):len(sealed.MAGIC) + 4], "big")
    width = 5 + sealed.CHUNK + sealed.TAG
    chunks = [whole[at:at + width] for at in range(start, len(whole), width)]
    assert len(chunks) == 6 and sealed.Reader(io.BytesIO(whole), key).read(5 << 20) == random.Random(1).randbytes(5 << 20)
    for bad in ([chunks[1], chunks[0], *chunks[2:]], chunks[1:], chunks[:-1], [*chunks[:2], *chunks[3:]], [*chunks[:-1], chunks[-1], chunks[-1]],
                [other[start:start + width], *chunks[1:]]):
        with pytest.raises(sealed.Damaged):
            sealed.Reader(io.BytesIO(whole[:start] + b"".join(bad)), key).finish()
    with pytest.raises(sealed.Damaged):
        sealed.Reader(io.BytesIO(whole), os.urandom(32)).finish()


def test_whatever_agents_leave_lying_about_harms_nobody(client, tmp_path):
    client.post("/agents", {"name": "felix"})
    workspace = settings.data / "agents/felix/workspace"
    os.mkfifo(workspace / "pipe")
    os.symlink("/etc/passwd", workspace / "link")
    os.symlink(str(tmp_path), workspace / "outside")
    os.link(settings.data / "orkosi.db", workspace / "twin.db")
    (workspace / "line\nbreak").write_text("x")
    (workspace / os.fsdecode(b"no-utf8-\xff")).write_bytes(b"y")
    (workspace / ("n" * 200) / ("m" * 200)).mkdir(parents=True)
    (workspace / ("n" * 200) / ("m" * 200) / "deep").write_text("z")
    (workspace / "script").write_text("#!/bin/sh\n")
    (workspace / "script").chmod(0o755)
    (settings.data / "agents/felix/runs/1").mkdir(parents=True)
    (settings.data / "agents/felix/runs/1/stdout").write_text("long")
    making.folder().mkdir(exist_ok=True)
    name = backups.fresh_name("manual")
    with acting(system()):
        making.make(name, "manual")
    client.post("/tasks", {"title": "the database is locked as before"})
    assert subprocess.run([sys.executable, "-c", f"import apsw; c = apsw.Connection({str(settings.data / 'orkosi.db')!r}); c.execute('BEGIN EXCLUSIVE')"],
                          capture_output=True).returncode in (0, 1)
    with unpacked(backups.at(name), tmp_path / "there"):
        there = tmp_path / "there/agents/felix/workspace"
        assert sorted(os.listdir(there)) == sorted(["SOUL.md", "link", "outside", "line\nbreak", os.fsdecode(b"no-utf8-\xff"), "n" * 200, "script"])
        assert os.readlink(there / "link") == "/etc/passwd" and (there / ("n" * 200) / ("m" * 200) / "deep").read_text() == "z"
        assert os.access(there / "script", os.X_OK) and (there / "script").stat().st_mode & 0o77 == 0
        assert not (tmp_path / "there/agents/felix/runs").exists() and not (tmp_path / "there/keys").exists()


def test_a_link_in_a_folders_place_leads_nowhere_while_a_backup_is_made(client, tmp_path, monkeypatch):
    client.post("/agents", {"name": "felix"})
    workspace, outside, add, offered = settings.data / "agents/felix/workspace", tmp_path / "outside", making.add, source.listing(settings.data)
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/secret").write_text("s")
    for name in ("a/big", "z/deep/note"):
        (workspace / name).parent.mkdir(parents=True)
        (workspace / name).write_text("x")
    whole = source.listing(settings.data)

    def turned(tar, path, known, *parent):
        if known.endswith("a/big"):
            (workspace / "z").rename(workspace / "y")
            (workspace / "z").symlink_to(outside)
        add(tar, path, known, *parent)
    monkeypatch.setattr(making, "add", turned)
    making.folder().mkdir(exist_ok=True)
    name = backups.fresh_name("manual")
    with acting(system()):
        making.make(name, "manual")
    with unpacked(backups.at(name), tmp_path / "there"):
        assert sorted(os.listdir(tmp_path / "there/agents/felix/workspace")) == ["SOUL.md", "a"] and (
            tmp_path / "there/agents/felix/workspace/a/big").read_text() == "x"
    assert "agents/felix/workspace/z/deep/note" in whole.keys() - offered.keys()
    raw = io.BytesIO()
    source.send(["agents/felix/workspace/z/deep/secret", "agents/felix/workspace/y/deep/note", "agents/felix/workspace/z", "orkosi.toml"], raw)
    raw.seek(0)
    assert tarfile.open(fileobj=raw).getnames() == ["agents/felix/workspace/y/deep/note", "agents/felix/workspace/z"]


def test_folders_in_folders_without_end_hold_no_backup_up(client, tmp_path):
    client.post("/agents", {"name": "felix"})
    place, before = os.open(settings.data / "agents/felix/workspace", os.O_RDONLY), len(os.listdir("/dev/fd"))
    for _ in range(600):  # more than are kept
        os.mkdir("d", dir_fd=place)
        below = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    making.folder().mkdir(exist_ok=True)
    name, held = backups.fresh_name("manual"), [len(os.listdir("/dev/fd")) for _ in making.walk(settings.data, "agents")]
    assert max(held) < before + 5 and len(held) > 100
    with acting(system()):
        making.make(name, "manual")
    with unpacked(backups.at(name), tmp_path / "there"):
        assert (tmp_path / "there/agents/felix/workspace" / "/".join("d" * 100)).is_dir()
    subprocess.run(["rm", "-rf", str(settings.data / "agents/felix/workspace/d")], check=True)


@pytest.mark.parametrize("name, link", [("../outside", None), ("/etc/owned", None), ("a/../../b", None), ("./x", None), ("", None), ("agents/x", "..")])
def test_an_archive_that_reaches_elsewhere_is_refused(client, tmp_path, name, link):
    client.post("/auth/me")
    key, path, place = os.urandom(32), tmp_path / "evil.backup", tmp_path / "place"
    with open(path, "wb") as file:
        writer = sealed.Writer(file, {"kek_id": "k", "salt": "00" * 16}, key)
        with tarfile.open(fileobj=writer, mode="w|") as tar:
            if link:
                first = tarfile.TarInfo("agents")
                first.type, first.linkname = tarfile.SYMTYPE, link
                tar.addfile(first)
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"evl"))
        writer.close()
    place.mkdir()
    with pytest.raises((sealed.Damaged, FileExistsError)):
        restoring.unpack(path, place, key)
    assert {one.name for one in tmp_path.iterdir()} <= {"data", "evil.backup", "place", "master.key", "master.key.lock"} and os.listdir(place) in ([], ["agents"])


def test_what_stands_loose_in_the_folder_comes_back(client, tmp_path):
    for name in ("orkosi.toml", "billing.toml"):
        (settings.data / name).write_text(f"# {name} of mine\n")
    name = backups.fresh_name("manual")
    with acting(system()):
        making.make(name, "manual")
    place = restoring.stage(backups.at(name), tmp_path / "elsewhere", None, lambda done, of: None)
    restoring.put_in_place(place, tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/orkosi.toml").read_text() == "# orkosi.toml of mine\n"
    assert (tmp_path / "elsewhere/billing.toml").read_text() == "# billing.toml of mine\n"


def test_two_who_make_one_at_once_both_make_one(client, tmp_path):
    making.folder().mkdir(exist_ok=True)

    def make(name):
        with acting(system()):
            sizes.append(making.make(name, "manual")["size"])
    sizes, names = [], [f"orkosi-20261126-12000{n}-manual.backup" for n in range(4)]
    threads = [threading.Thread(target=make, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 4 and sorted(os.listdir(making.folder())) == names
    for name in names:
        with unpacked(backups.at(name), tmp_path / name) as manifest:
            assert manifest["rows"]["orkosi.db/users"] == 1


def test_who_is_interrupted_while_waiting_takes_no_room_away(client, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt
    with making.room(".making") as place:
        (place / "orkosi.db").write_text("at work")
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", interrupted)
            with pytest.raises(KeyboardInterrupt), making.room(".making"):
                pass
        assert (place / "orkosi.db").read_text() == "at work"
    assert not place.exists()


def test_two_of_one_second_have_names_of_their_own(client, monkeypatch):
    monkeypatch.setattr(backups, "now", lambda ahead=0.0: "2026-11-26T12:00:00.000Z")
    said, together = [], threading.Barrier(2)

    def create():
        with acting(system()):
            together.wait()
            said.append(commands._created(None, "manual"))
    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["orkosi-20261126-120000-1-manual.backup", "orkosi-20261126-120000-manual.backup"]
    assert sorted(said) == sorted(one["filename"] for one in client.get("/backups").data)


def test_both_databases_are_of_one_moment_however_much_is_written_between_their_pieces(client, monkeypatch, tmp_path):
    """Each write adds a row to both. Between the pieces of a copy there is always one more."""
    moments = []

    def write():
        db.run("INSERT INTO activity (tenant_id, actor_type, actor_id, action, created_at) VALUES (1, 'system', '0', 'both', :now)", now=now())
        db.run("INSERT INTO logs.log_lines (source, level, message, created_at) VALUES ('db', 'info', 'both', :now)", now=now())

    class Piece(sealed.Settling):
        def wrote(self, size):
            super().wrote(size)
            moments.append(size)
            assert len(moments) < 1000, "the copy begins again each time"
            db.write(write)
    db.write(write)
    monkeypatch.setattr(making, "LOOSE", 1 << 16)
    monkeypatch.setattr(making, "Settling", Piece)
    making.make("orkosi-20261128-000000-manual.backup", "manual")
    assert len(moments) > 5
    with unpacked(backups.at("orkosi-20261128-000000-manual.backup"), tmp_path / "there") as manifest:
        assert {name: rows_of(tmp_path / "there" / file, table) for name, file, table in
                (("main", "orkosi.db", "activity WHERE action = 'both'"), ("logs", "logs.db", "log_lines WHERE message = 'both'"))} == {"main": 1, "logs": 1}
        assert manifest["rows"]["logs.db/log_lines"] == rows_of(tmp_path / "there/logs.db", "log_lines")
    assert not (making.folder() / ".making").exists()


def rows_of(path, table):
    con = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    finally:
        con.close()


def test_a_disk_that_fills_leaves_no_half_backup(client, monkeypatch):
    monkeypatch.setattr(sealed.Writer, "_put", lambda self, raw: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with acting(system()), pytest.raises(NoSpace):
        making.make(backups.fresh_name("manual"), "manual")
    assert os.listdir(settings.data / "backups") == [] and client.get("/backups").data == []


def lay(made, stamp, kind="scheduled", verification=None):  # noqa: F811
    """A backup like the one that was made, but of another time."""
    raw = (settings.data / "backups" / made).read_bytes()
    name = f"orkosi-{stamp[:19].replace('-', '').replace(':', '').replace('T', '-')}-{kind}.backup"
    header, size = sealed.read_header(io.BytesIO(raw)), len(sealed.MAGIC) + 4
    old = int.from_bytes(raw[size - 4:size], "big")
    fresh = json.dumps(header | {"created_at": stamp, "kind": kind}).encode()
    (settings.data / "backups" / name).write_bytes(raw[:size - 4] + len(fresh).to_bytes(4, "big") + fresh + raw[size + old:])
    if verification:
        backups.note(name, size=(settings.data / "backups" / name).stat().st_size, verification=verification, verified_at=stamp)
    return name


def test_what_is_kept(client, made):  # noqa: F811
    days = {day: [lay(made, now(-day * 86400)), lay(made, now(-(day + 0.3) * 86400))] for day in range(1, 500)}
    by_hand = lay(made, now(-400.5 * 86400), "manual")
    with acting(system()):
        backups.tidy()
    left = set(os.listdir(settings.data / "backups")) - {made, f"{made}.json", by_hand}
    assert by_hand in os.listdir(settings.data / "backups") and made in os.listdir(settings.data / "backups"), "what was made by hand stays"
    newest_of = {}
    for name in sorted((one for pair in days.values() for one in pair), reverse=True):
        newest_of.setdefault(name[7:15], name)
    wanted_days = [newest_of[day] for day in sorted(newest_of, reverse=True)[:7]]
    months = {}
    for day in sorted(newest_of, reverse=True):
        months.setdefault(day[:6], newest_of[day])
    assert set(wanted_days) | set(list(months.values())[:12]) <= left and len(left) <= 7 + 4 + 12
    import datetime
    weeks = {}
    for day in sorted(newest_of, reverse=True):
        weeks.setdefault(datetime.date(int(day[:4]), int(day[4:6]), int(day[6:])).isocalendar()[:2], newest_of[day])
    assert left == set(wanted_days) | set(list(months.values())[:12]) | set(list(weeks.values())[:4])


def test_one_that_cannot_be_restored_stands_for_its_day_only_where_there_is_no_other(client, made):  # noqa: F811
    settings.values |= {"backup_keep_days": 3, "backup_keep_weeks": 0, "backup_keep_months": 0}
    good = [lay(made, f"2026-10-0{day}T10:00:00.000Z", verification="ok") for day in (5, 6, 8)]
    bad = [lay(made, f"2026-10-0{day}T{hour}:00:00.000Z", verification="failed") for day in (6, 7) for hour in (11, 12)]
    lay(made, "2026-10-08T09:00:00.000Z"), lay(made, "2026-10-04T10:00:00.000Z")
    with acting(system()):
        backups.tidy()
    assert {one["filename"] for one in client.get("/backups").data} == {made, *good, bad[3]}, "nor does it take the place of a day that has a good one"


def test_what_cannot_be_restored_holds_the_next_one_up_no_longer(client, made):  # noqa: F811
    (settings.data / "backups" / made).unlink()
    assert client.get("/backups/stats").data["last_backup_at"] is None
    founded = client.get("/backups/stats").data["next_backup_at"]
    foreign = settings.data / "backups" / "orkosi-20261101-120000-manual.backup"
    foreign.write_bytes(b"something else")
    os.utime(foreign, (4e9, 4e9))
    assert client.get("/backups").data[0]["verification"] == "failed" and client.get("/backups").data[0]["created_at"] > "2090"
    shown = client.get("/backups/stats").data
    assert (shown["count"], shown["last_backup_at"], shown["next_backup_at"]) == (1, None, founded)


def test_the_last_one_is_one_that_can_be_restored_and_of_no_time_to_come(client, made):  # noqa: F811
    good = lay(made, now(-90000))
    for ahead, verification in ((-60, "failed"), (80000, None)):
        lay(made, now(ahead), verification=verification)
    (settings.data / "backups" / made).unlink()
    shown, before = client.get("/backups/stats").data, backups.find(good).created_at
    assert shown["last_backup_at"] == before and seconds(shown["next_backup_at"]) == pytest.approx(seconds(before) + 86400, abs=1) and shown["next_backup_at"] < now()
    backups.begin("opened", settings.data)  # as if an hour had passed
    backups.come_round()
    assert backups.trigger().filename.endswith("-scheduled.backup"), "its time has come"


def test_the_next_one_is_made_when_its_time_has_come_and_a_drill_once_a_week(client, made):  # noqa: F811
    listed = lambda: [one["filename"] for one in client.get("/backups").data]  # noqa: E731
    backups.come_round()
    work()
    assert listed() == [made]
    settings.values["backup_hours"] = 1e-9
    backups.come_round()
    work()
    assert len(listed()) == 2 and listed()[0].endswith("-scheduled.backup")
    backups.begin("opened", settings.data)  # as if an hour had passed
    settings.values["backup_hours"] = 24.0
    assert client.get("/backups/stats").data["last_drill"] is None
    import unittest.mock
    with unittest.mock.patch.object(backups, "now", lambda ahead=0.0: now(ahead + 7200)):
        backups.come_round()
    work()
    assert client.get("/backups/stats").data["last_drill"]["ok"] is True
    assert backups.health().ok is True
    path = settings.data / "backups" / listed()[0]
    path.write_bytes(path.read_bytes()[:-9])
    client.post(f"/backups/{listed()[0]}/verify")
    work()
    assert backups.health().ok is False and listed()[0] in backups.health().detail


def test_what_cannot_be_made_is_not_tried_each_minute(client, made):  # noqa: F811
    os.rename(master.path(), f"{master.path()}.away")
    settings.values["backup_hours"] = 1e-9
    told = lambda: [one["title"] for one in client.get("/notifications").data].count("No backup was made")  # noqa: E731
    for _ in range(5):
        backups.come_round()
        work()
    assert told() == 1 and len(client.get("/backups").data) == 1
    backups._tried -= backups.RETRY
    backups.come_round()
    assert backups.trigger().filename.endswith("-scheduled.backup"), "after an hour it is tried again"


def test_who_was_erased_stays_erased(client, made, people, tmp_path):  # noqa: F811
    user, _ = people("gone")
    client.post("/backups/trigger")
    work()
    name = client.get("/backups").data[0]["filename"]
    with acting(system()):
        users.erase(user.id)
    assert b"gone@example.com" not in (settings.data / "erasures.jsonl").read_bytes()
    (settings.data / "erasing/7.json").write_text("{}")  # one that is not finished
    place = restoring.stage(backups.at(name), tmp_path / "elsewhere", None, lambda done, of: None)
    shutil.copytree(settings.data, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("*.db*"))
    kept = restoring.put_in_place(place, tmp_path / "elsewhere")
    assert kept and (tmp_path / "elsewhere/erasures.jsonl").read_bytes() == (settings.data / "erasures.jsonl").read_bytes()
    assert (tmp_path / "elsewhere/erasing/7.json").exists()
    assert (tmp_path / "elsewhere/backups" / name).exists() and not (kept / "backups").exists() and (kept / "erasures.jsonl").exists()


@pytest.mark.parametrize("step, code, said", [(1, errno.EBUSY, "Restore into a folder inside it"), (2, errno.EXDEV, "Restore into a folder inside it"),
                                              (1, errno.EACCES, "Permission")])
def test_what_cannot_be_put_in_place_leaves_all_as_it_was(client, made, tmp_path, monkeypatch, step, code, said):  # noqa: F811
    there, rename, steps = tmp_path / "elsewhere", os.rename, iter((1, 2, 3))
    there.mkdir()
    (there / "mine").write_text("x")
    place = restoring.stage(backups.at(made), there, None, lambda done, of: None)

    def fail(source, target):
        if next(steps) == step:
            raise OSError(code, os.strerror(code), str(source))
        rename(source, target)
    monkeypatch.setattr(restoring, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises((Unavailable, OSError), match=said):
        restoring.put_in_place(place, there)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("elsewhere")] == ["elsewhere"] and (there / "mine").read_text() == "x"


@pytest.mark.parametrize("again", ["restore", "doctor"])
def test_what_a_killed_restore_had_replaced_is_kept(client, made, tmp_path, monkeypatch, again):  # noqa: F811
    there, copy, rename = tmp_path / "elsewhere", tmp_path / "copy.backup", os.rename
    (there / "backups").mkdir(parents=True)
    (there / "mine").write_text("the only copy")
    (there / "backups" / made).write_bytes(backups.at(made).read_bytes())
    copy.write_bytes(backups.at(made).read_bytes())
    place = restoring.stage(copy, there, None, lambda done, of: None)

    def killed(source, target):
        if source == place:
            raise KeyboardInterrupt
        rename(source, target)
    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        restoring.put_in_place(place, there)
    monkeypatch.setattr(os, "rename", rename)
    assert (place / "mine").exists() and (there / "orkosi.db").exists()
    if again == "restore":
        done = command(there, master.path(), "restore", made, "--yes")  # by its name: it is in the folder that was replaced
        assert "A restore was interrupted" in done.stderr and not (there / restoring.STAGED).exists()
    else:
        monkeypatch.setitem(settings.values, "data", there)
        assert any("kept as" in one.detail for one in doctor.mend())
    kept = sorted(tmp_path.glob("elsewhere.before-restore-*"))
    assert [(one / "mine").exists() for one in kept] == [True, False][:len(kept)] and len(kept) == {"restore": 2, "doctor": 1}[again]
    assert (there / "backups" / made).exists() and not place.exists()


def test_what_was_never_put_in_place_is_thrown_away(client, made, tmp_path):  # noqa: F811
    place = restoring.stage(backups.at(made), tmp_path / "elsewhere", None, lambda done, of: None)
    (place / "half").write_text("x")
    assert restoring.heal(tmp_path / "elsewhere") is None and not place.exists()
    assert not list(tmp_path.glob("elsewhere*"))


def test_a_disk_s_own_folder_is_refused_before_anything_is_unpacked(client, made, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    with pytest.raises(Unavailable, match=f"--data {tmp_path}/disk/orkosi"):
        restoring.stage(backups.at(made), tmp_path / "disk", None, lambda done, of: None)
    assert not list(tmp_path.glob("*.restoring"))


# ── off the machine ──


def pushed(remote):  # noqa: F811
    with acting(system()):
        backups.offsite.push()
    names = [one["filename"] for one in json.loads(on(remote, "show", "backups:index.json"))]
    assert on(remote, "ls-tree", "--name-only", "backups").splitlines() == sorted([*names, "index.json"])
    return names


def made_anew(client):
    name = client.post("/backups/trigger").data["filename"]
    work()
    return name


def on_another_machine():
    for name in ("offsite", "backups"):
        shutil.rmtree(settings.data / name)
    (settings.data / "backups").mkdir()


def test_what_another_machine_pushed_stays_until_a_rule_ends_it(client, remote, tmp_path, monkeypatch):  # noqa: F811
    first = [made_anew(client) for _ in range(3)][::-1]
    scheduled = first[0].replace("manual", "scheduled")
    (settings.data / "backups" / first[0]).rename(settings.data / "backups" / scheduled)
    (settings.data / "backups" / f"{first[0]}.json").rename(settings.data / "backups" / f"{scheduled}.json")
    first[0] = scheduled
    assert sorted(pushed(remote)) == sorted(first)
    whole = on(remote, "rev-parse", f"backups:{first[2]}")
    on_another_machine()
    second = [made_anew(client) for _ in range(2)]
    assert sorted(pushed(remote)) == sorted(first + second), "also the push that each backup asks for kept them"
    assert on(remote, "rev-parse", f"backups:{first[2]}") == whole
    client.delete(f"/backups/{second[0]}")
    assert sorted(pushed(remote)) == sorted([*first, second[1]]), "what is deleted here goes, and nothing of the others"
    shutil.rmtree(settings.data / "offsite/repository.git")
    assert sorted(pushed(remote)) == sorted([*first, second[1]]), "the others' pieces are fetched anew"
    path = backups.offsite.fetch(str(remote), tmp_path, first[2])
    assert restoring.unpack(path, (tmp_path / "out"), restoring.key_of(path))
    monkeypatch.setitem(settings.values, "backup_keep_days", 0)
    monkeypatch.setitem(settings.values, "backup_keep_weeks", 0)
    monkeypatch.setitem(settings.values, "backup_keep_months", 0)
    assert sorted(pushed(remote)) == sorted([*first[1:], second[1]])


def test_a_push_destroys_nothing_that_it_does_not_know(client, remote, monkeypatch):  # noqa: F811
    tree = subprocess.run(["git", "-C", str(remote), "mktree"], input="", text=True, check=True, capture_output=True).stdout.strip()
    stranger = on(remote, "commit-tree", tree, "-m", "x")
    on(remote, "update-ref", "refs/heads/backups", stranger)
    made_anew(client)
    assert "set backup_branch to another name" in client.get("/backups/logs").data["lines"][-1] and on(remote, "rev-parse", "backups") == stranger
    on(remote, "update-ref", "-d", "refs/heads/backups")
    ours, commit = pushed(remote), backups.offsite._commit

    def meanwhile(*arguments):
        on(remote, "update-ref", "refs/heads/backups", stranger)
        return commit(*arguments)
    monkeypatch.setattr(backups.offsite, "_commit", meanwhile)
    with pytest.raises(Unavailable):
        pushed(remote)
    assert ours and on(remote, "rev-parse", "backups") == stranger


def test_pushes_at_once_take_turns_and_mix_nothing(client, remote, tmp_path, monkeypatch):  # noqa: F811
    names = [made_anew(client) for _ in range(2)]
    shutil.rmtree(settings.data / "offsite")  # all pieces are laid anew
    repository, inside, most, commit = backups.offsite.repository(), [], [], backups.offsite._commit

    def counted(*arguments):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)  # as long as large pieces take, so that the others could come in
        try:
            return commit(*arguments)
        finally:
            inside.pop()
    monkeypatch.setattr(backups.offsite, "_commit", counted)
    with ThreadPoolExecutor(3) as hands:
        for one in [hands.submit(pushed, remote) for _ in range(3)]:
            assert sorted(one.result()) == sorted(names)
        assert most == [1, 1, 1]
        raws = [os.urandom(20_000) for _ in range(60)]
        wanted = [hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest() for raw in raws]
        assert list(hands.map(lambda raw: backups.offsite._blob(repository, raw), raws)) == wanted
    left = {one.name for one in repository.iterdir() if one.is_file()} - {"FETCH_HEAD", "HEAD", "config", "description", "packed-refs", "shallow"}
    assert not left, "what was fed to git has no name"
    for name in names:
        (tmp_path / name).mkdir()
        assert backups.offsite.fetch(str(remote), tmp_path / name, name).read_bytes() == backups.at(name).read_bytes()


def test_one_backup_asks_for_one_push(client, remote):  # noqa: F811
    name = made_anew(client)
    with acting(system()):
        backups.offsite.ask(name)
    assert db.value("SELECT count(*) FROM jobs WHERE :tenant AND task_type = 'backups.push'") == 1


# ── commands ──


def test_a_link_goes_on_leading_to_what_is_restored_on_its_disk(client, made, tmp_path):  # noqa: F811
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk / "data")
    for kept in (0, 1):
        done = command(link, master.path(), "restore", str(backups.at(made)), "--yes")
        assert link.is_symlink() and (link / "orkosi.db").exists() and (disk / "data/agents/felix/workspace/note.txt").read_text() == "all of it"
        assert len(list(disk.glob("data.before-restore-*"))) == kept and ("What it replaced" in done.stdout) is bool(kept)
        assert sorted(one.name for one in tmp_path.iterdir() if one.name.startswith("link")) == ["link"]


def command(folder, key, *arguments, stdin="", check=True):
    done = subprocess.run([sys.executable, f"{HOME}/orkosi.py", *arguments, "--data", str(folder)], capture_output=True, text=True, input=stdin,
                          env={name: value for name, value in os.environ.items() if not name.startswith("ORKOSI_")}
                          | {"ORKOSI_NO_INSTALL": "1", "ORKOSI_MASTER_KEY_FILE": str(key)})
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_worst_day(server, tmp_path):
    """Folder and key are gone; the remote, the recovery key and the README's commands bring all of it back, and felix goes on."""
    required("git", "git")
    remote_path, key = tmp_path / "remote.git", tmp_path / "home/master.key"
    subprocess.run(["git", "init", "--bare", "-q", str(remote_path)], check=True)
    env = {"ORKOSI_MASTER_KEY_FILE": str(key), "ORKOSI_BACKUP_REMOTE": str(remote_path)}
    running = server(env=env)
    admin = server.admin(running)
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 1}, admin)
    brain = running.folder / "agents/felix/workspace/brain"
    brain.write_text("#!/bin/sh\necho \"done by $ORKOSI_AGENT with $SHOP_TOKEN\" | sed s/sk_live.*/secret/; echo kept >> diary\n")
    brain.chmod(0o700)
    running.call("POST", "/credentials", {"key": "SHOP_TOKEN", "value": "sk_live_1234567890", "grants": ["felix"]}, admin)
    first = running.call("POST", "/tasks", {"title": "Before", "assignee": "felix"}, admin)[1]["data"]["id"]
    show = lambda one, id, token: one.call("GET", f"/tasks/{id}", token=token)[1]["data"]  # noqa: E731
    eventually(lambda: show(running, first, admin)["status"] == "done", patience=30)
    running.call("POST", "/agents/felix/pause", {}, admin)
    waiting = running.call("POST", "/tasks", {"title": "After", "assignee": "felix", "description": "x" * 1000}, admin)[1]["data"]["id"]
    running.call("POST", "/task-queue/submit", {"task_type": "t", "payload": {"n": 7}}, admin)
    recovery = command(running.folder, key, "vault", "recovery-key").stdout.strip()
    name = running.call("POST", "/backups/trigger", None, admin)[1]["data"]["filename"]
    eventually(lambda: running.call("GET", "/backups/github-status", token=admin)[1]["data"]["in_sync"], patience=30, every=0.3)
    lists_before = {path: running.call("GET", path, token=admin)[1]["data"] for path in ("/tasks", "/task-queue", "/agent-runs", "/changelog")}
    refused = command(running.folder, key, "restore", name, "--yes", check=False)
    assert refused.returncode == 3 and "stop it first" in refused.stderr
    running.stop()
    shutil.rmtree(running.folder)
    shutil.rmtree(key.parent)

    wrong = command(running.folder, key, "restore", "--remote", str(remote_path), "--yes", check=False)
    assert wrong.returncode and "recovery key" in wrong.stderr and not running.folder.exists()
    typo = command(running.folder, key, "restore", "--remote", str(remote_path), "--yes", "--recovery-key-stdin", stdin=f"{recovery[:-1]}{'Y' if recovery[-1] == 'X' else 'X'}\n", check=False)
    assert typo.returncode and "no recovery key" in typo.stderr and not running.folder.exists()
    done = command(running.folder, key, "restore", "--remote", str(remote_path), "--yes", "--recovery-key-stdin", stdin=f"{recovery}\n")
    assert "is as it was at" in done.stdout and not list(running.folder.parent.glob("*.restoring"))

    again = server(folder=running.folder, env=env)
    admin = again.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    for path, before in lists_before.items():
        strip = lambda rows: [{name: value for name, value in row.items() if name not in ("why", "updated_at")} for row in rows]  # noqa: E731
        assert strip(again.call("GET", path, token=admin)[1]["data"]) == strip(before), path
    assert (running.folder / "agents/felix/workspace/diary").read_text() == "kept\n"
    assert again.call("GET", "/credentials/SHOP_TOKEN", token=admin)[1]["data"]["value"] == "sk_live_1234567890"
    again.call("POST", "/agents/felix/resume", {}, admin)
    eventually(lambda: show(again, waiting, admin)["status"] == "done", patience=40)
    assert show(again, waiting, admin)["resolution"] == "done by felix with secret"
    assert (running.folder / "agents/felix/workspace/diary").read_text() == "kept\nkept\n"


@pytest.mark.slow
def test_restoring_keeps_what_it_replaces_and_undoes_nothing_by_halves(server, tmp_path):
    key = tmp_path / "master.key"
    running = server(env={"ORKOSI_MASTER_KEY_FILE": str(key)})
    admin = server.admin(running)
    running.call("POST", "/tasks", {"title": "Before"}, admin)
    name = command(running.folder, key, "backup", "create").stdout.split(":")[0]
    running.call("POST", "/tasks", {"title": "After"}, admin)
    running.stop()
    damaged = tmp_path / "damaged.backup"
    raw = bytearray((running.folder / "backups" / name).read_bytes())
    raw[-20] ^= 1
    damaged.write_bytes(raw)
    refused = command(running.folder, key, "restore", str(damaged), "--yes", check=False)
    assert refused.returncode and "damaged" in refused.stderr and not list(running.folder.parent.glob("data.*"))
    assert "After" in str(titles(server(folder=running.folder, env={"ORKOSI_MASTER_KEY_FILE": str(key)})))
    command(running.folder, key, "restore", name, "--yes", check=False)


def titles(running):
    admin = running.call("POST", "/auth/login", {"email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    found = [one["title"] for one in running.call("GET", "/tasks", token=admin)[1]["data"]]
    running.stop()
    return found


@pytest.mark.slow
def test_a_slow_reader_of_a_download_holds_nobody_up(server, tmp_path):
    import socket
    running = server(env={"ORKOSI_MASTER_KEY_FILE": str(tmp_path / "master.key")})
    admin = server.admin(running)
    (running.folder / "products/x").mkdir(parents=True)
    (running.folder / "products/x/big").write_bytes(os.urandom(48 << 20))
    name = command(running.folder, tmp_path / "master.key", "backup", "create").stdout.split(":")[0]
    size = (running.folder / "backups" / name).stat().st_size
    before = int(open(f"/proc/{running.process.pid}/statm").read().split()[1]) * 4096 if sys.platform == "linux" else 0
    slow = []
    for _ in range(8):
        one = socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])))
        one.sendall(f"GET /api/backups/{name}/download HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin}\r\n\r\n".encode())
        assert one.recv(1000).startswith(b"HTTP/1.1 200")
        slow.append(one)
    assert running.call("GET", "/tasks", token=admin)[0] == 200, "eight who do not read, and the ninth is answered"
    if sys.platform == "linux":
        assert int(open(f"/proc/{running.process.pid}/statm").read().split()[1]) * 4096 - before < 64 << 20, "none of the files is in memory"
    got, whole = 0, slow[0]
    whole.settimeout(20)
    while got < size - 1000 and (block := whole.recv(1 << 20)):
        got += len(block)
    assert got >= size - 1000
    for one in slow:
        one.close()
    assert eventually(lambda: len(os.listdir(f"/proc/{running.process.pid}/fd")) < 60) if sys.platform == "linux" else True

