"""Onto the Mac: a bundle, installed without a network into a path with spaces, kept by launchd, upgraded, and put back by itself."""
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from browser import required
from conftest import HOME, eventually

from plugins import service
from plugins.service import bundle, commands, upgrade


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheels for this Python on this machine."""
    folder = tmp_path_factory.mktemp("wheels")
    done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), *bundle.pins()], capture_output=True, text=True)
    if done.returncode:
        required("no-such-network", "A network to get wheels from")
    return folder


@pytest.fixture
def tree(tmp_path, wheels):
    """A copy of the code, with wheels."""
    home = tmp_path / "made here"
    shutil.copytree(HOME, home, ignore=shutil.ignore_patterns(".git", ".venv", "data", "__pycache__", "bench", "tests", "releases", "*.zip"))
    shutil.copytree(wheels, home / "wheels", dirs_exist_ok=True)
    return home


def test_a_bundle_is_the_same_each_time_and_names_all_that_is_in_it(tree, tmp_path):
    one, two = bundle.make(tmp_path / "one.zip", tree), bundle.make(tmp_path / "two.zip", tree)
    raw = (tmp_path / "one.zip").read_bytes()
    assert one == two and raw == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as made:
        root = f"orkosi-{one['version']}"
        assert {name.removeprefix(f"{root}/") for name in made.namelist()} == {*one["files"], "bundle.json"}
        assert all(hashlib.sha256(made.read(f"{root}/{name}")).hexdigest() == sha256 for name, sha256 in one["files"].items())
        assert not [name for name in made.namelist() if "__pycache__" in name or ".venv" in name or "/tests/" in name or "/data/" in name]
        parts = json.loads(made.read(f"{root}/sbom.cdx.json"))["components"]
    assert sorted(f"{part['name']}=={part['version']}" for part in parts) == sorted(bundle.pins())
    assert all(part["properties"] and all(len(one["value"]) == 64 for one in part["properties"]) for part in parts)


def test_a_bundle_with_one_changed_byte_is_refused(tree, tmp_path):
    bundle.make(tmp_path / "good.zip", tree)
    place = tmp_path / "place"
    for number, name in enumerate(("orkosi.py", "plugins/queue/__init__.py", "bundle.json")):
        bad = tmp_path / f"bad{number}.zip"
        with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(bad, "w") as made:
            for info in good.infolist():
                raw = good.read(info)
                made.writestr(info, raw.replace(b"a", b"b", 1) if info.filename.endswith(f"/{name}") else raw)
        place.mkdir()
        with pytest.raises(bundle.Damaged):
            bundle.unpack(bad, place)
        shutil.rmtree(place)
    for names in (["../outside"], ["/etc/owned"], ["a/../../b"], ["plugins/x\\y"]):
        bad = tmp_path / "evil.zip"
        with zipfile.ZipFile(bad, "w") as made:
            files = {name: hashlib.sha256(b"evil").hexdigest() for name in names}
            made.writestr("orkosi-9/bundle.json", json.dumps({"version": "9", "files": files}))
            for name in names:
                made.writestr(f"orkosi-9/{name}", b"evil")
        place.mkdir()
        with pytest.raises(bundle.Damaged):
            bundle.unpack(bad, place)
        assert not list(place.iterdir()) and not (tmp_path / "outside").exists()
        shutil.rmtree(place)
    (tmp_path / "none.zip").write_bytes(b"no zip")
    with pytest.raises(bundle.Damaged):
        bundle.unpack(tmp_path / "none.zip", place)


def become(home, number, **changes):
    """The same code under another version's number, with some files changed."""
    text = (home / "orkosi.py").read_text()
    (home / "orkosi.py").write_text(re.sub(r'^VERSION = "[^"]+"', f'VERSION = "{number}"', text, count=1, flags=re.M))
    for path, (old, new) in changes.items():
        said = (home / path).read_text()
        assert old in said
        (home / path).write_text(said.replace(old, new, 1))


@pytest.mark.slow
def test_bundle_install_upgrade_and_the_way_back(tree, tmp_path, launchctl):
    """Bundle, unzip into a path with spaces, no network, install, agents run, upgrade, a broken bundle rolls back by itself."""
    first = tmp_path / "first.zip"
    bundle.make(first, tree)
    subprocess.run(["unzip", "-q", str(first), "-d", str(tmp_path / "My Mac")], check=True)
    home = next((tmp_path / "My Mac").iterdir())
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ORKOSI_", "PIP_"))} | {
        "HOME": str(tmp_path / "somebody"), "ORKOSI_SUPERVISOR": "launchd", "ORKOSI_PORT": "0", "ORKOSI_AGENT_PATH": str(tmp_path / "bin"), "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_INDEX": "1",
        "ORKOSI_MASTER_KEY_FILE": str(tmp_path / "somebody/master.key")}
    (tmp_path / "somebody").mkdir()

    def orkosi(*arguments, check=True, stdin=""):
        done = subprocess.run([sys._base_executable, str(home / "orkosi.py"), *arguments], capture_output=True, text=True, env=env, input=stdin, timeout=180)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done
    orkosi("user", "add", "root@example.com", "--username", "root", "--role", "admin", "--password-stdin", stdin="correct horse battery\n")
    made = orkosi("install")
    assert "runs version 0.1.0 at http://127.0.0.1:" in made.stdout
    plist, = (tmp_path / "somebody/Library/LaunchAgents").glob("com.orkosi.*.server.plist")
    assert "runs version" in orkosi("install").stdout, "again, nothing is wrong"
    shown = json.loads(orkosi("service", "status", "--json").stdout)
    assert shown["loaded"] and shown["pid"] and shown["version"] == "0.1.0" and "ready at" in orkosi("service", "logs").stdout

    def done(title):
        task = json.loads(orkosi("task", "add", title, "--assignee", "felix", "--json").stdout)["id"]
        return eventually(lambda: json.loads(orkosi("task", "show", str(task), "--json").stdout)["status"] == "done", patience=40, every=0.5)
    (tmp_path / "brain").write_text("#!/bin/sh\necho well\n")
    (tmp_path / "brain").chmod(0o755)
    orkosi("agent", "add", "felix", "--interval", "1", "--command", str(tmp_path / "brain"))
    assert done("Before")

    become(tree, "0.2.0")
    bundle.make(tmp_path / "second.zip", tree)
    assert "Version 0.2.0 runs now" in orkosi("upgrade", str(tmp_path / "second.zip")).stdout
    assert json.loads(orkosi("service", "status", "--json").stdout)["version"] == "0.2.0" and done("After")
    assert "pip" in subprocess.run([home / ".venv/bin/pip", "--version"], capture_output=True, text=True, check=True).stdout, "it knows where it is now"
    assert not (home / "releases/next").exists()

    become(tree, "0.3.0", **{"plugins/demo/__init__.py": ('def remember(', 'def remember(event: str, folder: object, **_: Any) -> None:\n    raise SystemExit(7)\n\n\ndef unused(')})
    bundle.make(tmp_path / "third.zip", tree)
    broken = orkosi("upgrade", str(tmp_path / "third.zip"), check=False)
    assert broken.returncode and "0.3.0 did not run, and 0.2.0 is in its place again: The server ended 3 times, the last time with 7" in broken.stderr
    assert json.loads(orkosi("service", "status", "--json").stdout)["version"] == "0.2.0" and done("After all")
    bad = bytearray((tmp_path / "second.zip").read_bytes())
    bad[len(bad) // 2] ^= 1
    (tmp_path / "bad.zip").write_bytes(bad)
    assert "bundle" in orkosi("upgrade", str(tmp_path / "bad.zip"), check=False).stderr
    mine = lambda: [line for line in subprocess.run(["launchctl", "list"], capture_output=True, text=True, env=env).stdout.splitlines() if "com.orkosi." in line]  # noqa: E731
    assert len(mine()) == 2 and "with it 1 of its agents and workers" in orkosi("uninstall").stdout and mine() == []
    assert not plist.exists() and orkosi("service", "status", check=False).returncode == 1


class Death(BaseException):
    """The power fails."""


@pytest.mark.parametrize("moment", range(27))
def test_an_upgrade_that_dies_at_any_moment_leaves_one_whole_version(tmp_path, monkeypatch, data, moment):
    home = tmp_path / "home"
    for version_, folder in (("old", home), ("new", home / "releases/next")):
        for name in (*bundle.CODE, "wheels", ".venv", "bundle.json"):
            path = folder / name
            inner = path / "inner" if name in ("plugins", "launchd", "wheels", ".venv") else path
            if (version_, name) == ("old", "bundle.json"):
                continue
            inner.parent.mkdir(parents=True, exist_ok=True)
            inner.write_text("import sys; print(sys.argv[1:])" if name == "orkosi.py" else f"{version_} {name}")
            if name == "orkosi.py":
                inner.write_text(f"# {version_}\n" + inner.read_text())
    look = lambda: {str(path.relative_to(home)): path.read_text() for path in sorted(home.rglob("*")) if path.is_file()  # noqa: E731
                    and "releases" not in path.parts and not path.name.startswith(".orkosi") and ".venv" not in path.parts}
    (home / "releases/journal.json").unlink(missing_ok=True)
    before = look()
    after = {name: text.replace("old", "new") for name, text in before.items()} | {"bundle.json": "new bundle.json"}
    assert before["orkosi.py"].startswith("# old") and before["plugins/inner"] == "old plugins"
    monkeypatch.setattr(upgrade, "HOME", str(home))
    monkeypatch.setattr(upgrade, "releases", lambda: home / "releases")
    steps = iter(range(10**6))
    for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), (shutil, "copy2")):
        real = getattr(module, name)

        def dying(*arguments, real=real, **more):
            if next(steps) == moment:
                raise Death
            return real(*arguments, **more)
        monkeypatch.setattr(module, name, dying)
    died = False
    try:
        upgrade._swap("", False)
    except Death:
        died = True
    monkeypatch.undo()
    assert (home / "orkosi.py").exists(), "by which all is healed"
    if died or (home / "releases/journal.json").exists():  # nobody holds the lock: whoever upgraded is dead
        heal = home / "releases/recover.py"
        if (home / "releases/journal.json").exists():
            assert heal.exists()
            for _ in range(2):
                subprocess.run([sys.executable, str(HOME / "plugins/service/recover.py"), str(home)], check=True, capture_output=True)
            assert not heal.exists()
        assert look() == before
    else:
        assert look() == after


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_a_rollback_that_dies_is_healed_by_the_next_start(tmp_path, monkeypatch, data, moment):
    home, names = tmp_path / "home", [*(name for name in upgrade.SWAPPED if name != "orkosi.py"), ".venv", "orkosi.py"]
    for version_, folder in (("new", home), ("old", home / "releases/before")):
        for name in (*bundle.CODE, "wheels", ".venv", "bundle.json", "sbom.cdx.json"):
            inner = folder / name / "inner" if name in ("plugins", "launchd", "wheels", ".venv") else folder / name
            inner.parent.mkdir(parents=True, exist_ok=True)
            inner.write_text(f"{version_}\nPRAGMA user_version = 99" if name == "schema.sql" else version_)
    facts = {"version": "0", "backup": "", "had": names, "names": names, "data": str(data)}
    (home / "releases/before/swapped.json").write_text(json.dumps(facts))
    monkeypatch.setattr(upgrade, "HOME", str(home))
    monkeypatch.setattr(upgrade, "releases", lambda: home / "releases")
    monkeypatch.setattr(upgrade, "launchd_has_it", lambda: False)
    monkeypatch.setattr(upgrade, "running", lambda: "")
    steps = iter(range(10**6))
    for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), (shutil, "copy2")):
        def dying(*arguments, real=getattr(module, name), **more):
            if next(steps) == moment:
                raise Death
            return real(*arguments, **more)
        monkeypatch.setattr(module, name, dying)
    with contextlib.suppress(Death):
        upgrade.rollback(print)
    monkeypatch.undo()
    begun = moment > 2  # before, what heals and the journal are laid
    if (home / "releases/journal.json").exists():
        subprocess.run([sys.executable, str(home / "releases/recover.py"), str(home)], check=True, capture_output=True)
        assert not (home / "releases/recover.py").exists()
    assert {name: (home / name / "inner" if (home / name).is_dir() else home / name).read_text()[:3] for name in names} == dict.fromkeys(
        names, "old" if begun else "new")


def test_a_folder_that_macos_guards_is_told_of_at_the_start(tmp_path, monkeypatch):
    """Under its own name, through a link, and for whatever lies in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Downloads/orkosi/data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "Downloads/orkosi")
    said = []
    for folder in ("Downloads/orkosi/data", "link/data", "Downloads"):
        assert service.protected(tmp_path / folder) == "Downloads"
        service.greet("serving", tmp_path / folder, say=said.append)
    assert said == []  # elsewhere than on a Mac, it is a folder like any other
    monkeypatch.setattr(sys, "platform", "darwin")
    service.greet("serving", tmp_path / "link/data", say=said.append)
    service.greet("serving", tmp_path / "orkosi", say=said.append)
    assert len(said) == 1 and "is in Downloads" in said[0] and "~/orkosi" in said[0]


@pytest.mark.parametrize("lines, shown", [(0, "new\n"), (1, "two\nnew\n"), (50, "one\ntwo\nnew\n")])
def test_logs_that_are_followed_begin_as_many_lines_back_as_were_asked_for(tmp_path, monkeypatch, capsys, lines, shown):
    log = tmp_path / "service.log"
    log.write_text("one\ntwo\n")
    monkeypatch.setattr(service, "log_file", lambda: log)

    def wait(_):
        if log.read_text().endswith("new\n"):
            raise KeyboardInterrupt
        log.write_text("one\ntwo\nnew\n")
    monkeypatch.setattr(commands.time, "sleep", wait)
    with pytest.raises(KeyboardInterrupt):
        commands._logs(lines, True)
    assert capsys.readouterr().out == shown
