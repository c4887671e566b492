"""The vault: what was changed does not open, what is interrupted loses nothing, and where the key is not as it must be, it says so."""
import contextlib
import json
import os
import random
import re
import secrets as random_bytes
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from urllib.parse import quote

import pytest
from conftest import HOME, Client, command, eventually

from orkosi import Conflict, acting, db, settings, system
from plugins import credentials, hooks, keys, vault
from plugins.logs.tailer import Tailer
from plugins.vault import canaries, master

RECOVERY = re.compile(r"([0-9A-Z]{4}-){13}[0-9A-Z]{4}")


@pytest.fixture
def secret(client):
    """Twelve credentials, by key."""
    values = {f"KEY_{number}": f"value {number} " * (number + 1) for number in range(12)}
    for key, value in values.items():
        assert client.post("/credentials", {"key": key, "value": value}).status == 201
    return values


def shown(client, key):
    return client.get(f"/credentials/{key}")


def unlimited(monkeypatch):
    monkeypatch.setitem(settings.values, "limit_credential_read", "off")


@pytest.mark.parametrize("body, field", [
    ({"key": "lower", "value": "x"}, "key"), ({"key": "", "value": "x"}, "key"), ({"key": "1A", "value": "x"}, "key"), ({"key": "A" * 65, "value": "x"}, "key"),
    ({"key": "A\n", "value": "x"}, "key"), ({"key": "A", "value": ""}, "value"), ({"key": "A", "value": "x" * (64 * 1024 + 1)}, "value"),
    ({"key": "A", "value": "é" * 32 * 1024 + "x"}, "value"), ({"key": "A", "value": 5}, "value"), ({"key": "A", "value": "a\u0000b"}, "NUL"),
    ({"key": "A", "value": "x", "grants": ["nobody"]}, "grants"), ({"key": "A", "value": "x", "grants": "felix"}, "grants"), ({"key": "A"}, "value"),
    ({"key": "A", "value": "x", "extra": 1}, "extra")])
def test_what_is_no_credential_is_refused_and_nothing_is_kept(client, body, field):
    refused = client.post("/credentials", body)
    assert refused.status == 400 and field in json.dumps(refused.error) and client.get("/credentials").data == []


def test_a_lone_surrogate_is_refused(client):
    assert client.request("POST", "/credentials", raw=b'{"key": "A", "value": "\\ud800"}').status == 400 and client.get("/credentials").data == []


def test_the_largest_value_comes_back_whole(client):
    for value in ("x" * 64 * 1024, "é" * 32 * 1024, "\x01\x7f \t"):
        client.post("/credentials", {"key": "A", "value": value})
        assert shown(client, "A").data["value"] == value


@pytest.mark.slow
def test_nothing_that_was_changed_opens_and_the_server_lives_on(client, secret, monkeypatch):
    """A thousand flips of bits, and rows and fields in each other's places."""
    unlimited(monkeypatch)
    rows = {(id, version): (nonce, sealed) for id, version, nonce, sealed in db.all(tuple, "SELECT credential_id, version, nonce, sealed FROM credential_versions WHERE :tenant")}
    dice, ids = random.Random(7), {f"KEY_{number}": number + 1 for number in range(12)}

    def store(key, nonce, sealed):
        db.write(lambda: db.run("UPDATE credential_versions SET nonce = :nonce, sealed = :sealed WHERE credential_id = :id AND :tenant", id=ids[key], nonce=nonce, sealed=sealed))

    for _ in range(1000):
        key = dice.choice(list(secret))
        nonce, sealed = rows[ids[key], 1]
        raw = bytearray(nonce + sealed)
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        store(key, bytes(raw[:12]), bytes(raw[12:]))
        with acting(system()), pytest.raises(vault.Unreadable):
            credentials.reveal(key)
        store(key, nonce, sealed)
    for one, other in (("KEY_1", "KEY_2"), ("KEY_5", "KEY_0")):
        store(one, *rows[ids[other], 1])
        answer = shown(client, one)
        assert (answer.status, answer.code) == (500, "decryption_failed") and one in answer.error["message"] and secret[other].strip() not in answer.body.decode()
        store(one, *rows[ids[one], 1])
    client.post("/credentials", {"key": "KEY_3", "value": "newer"})
    db.write(lambda: db.run("UPDATE credentials SET version = 1 WHERE key = 'KEY_4' AND tenant_id = 1"))
    db.write(lambda: db.run("UPDATE credential_versions SET version = 3 WHERE credential_id = 4 AND version = 1 AND :tenant"))
    db.write(lambda: db.run("UPDATE credentials SET version = 3 WHERE id = 4 AND tenant_id = 1"))
    assert shown(client, "KEY_3").code == "decryption_failed", "an old version under a new number"
    assert all(shown(client, key).data["value"] == value for key, value in secret.items() if key != "KEY_3")
    db.write(lambda: db.run("UPDATE vault_keys SET wrapped = :wrapped", wrapped=random_bytes.token_bytes(48)))
    assert shown(client, "KEY_1").code == "vault_sealed" and client.get("/tasks").status == 200


def broken(file, how):
    raw = file.read_bytes()
    match how:
        case "missing":
            file.unlink()
        case "another":
            master.write(file, random_bytes.token_bytes(32))
        case "readable":
            file.chmod(0o644)
        case "linked":
            file.rename(file.with_suffix(".real")), file.symlink_to(file.with_suffix(".real"))
        case "short":
            file.write_bytes(raw[:40])
        case "nonsense":
            file.write_bytes(b"\xff" * 90)
        case "pipe":
            file.unlink(), os.mkfifo(file, 0o600)
        case "folder":
            file.unlink(), file.mkdir()


@pytest.mark.parametrize("how", ["missing", "another", "readable", "linked", "short", "nonsense", "pipe", "folder"])
def test_a_key_file_that_is_not_as_it_must_be_seals_the_vault_in_one_sentence(client, secret, how):
    vault._data_keys.clear()
    broken(master.path(), how)
    for answer in (shown(client, "KEY_1"), client.post("/credentials", {"key": "KEY_1", "value": "x"})):
        assert (answer.status, answer.code) == (503, "vault_sealed") and str(master.path()) in answer.error["message"]
        assert re.search(r"vault import-key|chmod 600", answer.error["message"]) and "\n" not in answer.error["message"]
    assert client.get("/credentials").meta["total"] == 12 and client.get("/tasks").status == 200
    check = vault.health()
    assert not check.ok and str(master.path()) in check.detail


def test_the_key_file_is_made_for_its_owner_alone_and_never_written_over(client, secret, tmp_path):
    file = master.path()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and not list(file.parent.glob("*.next"))
    before = file.read_bytes()
    with acting(system()):
        vault.make()
    assert file.read_bytes() == before


# ── other keys ──


def test_a_recovery_key_is_the_key_in_writing(client):
    for _ in range(50):
        key = random_bytes.token_bytes(32)
        text = master.recovery(key)
        assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){13}[0-9A-HJKMNP-TV-Z]{4}", text) and master.from_recovery(text) == key
        assert master.from_recovery(text.lower().replace("-", " ").replace("0", "o").replace("1", "l")) == key
        at = random.randrange(len(text))
        if text[at] != "-":
            wrong = text[:at] + ("2" if text[at] != "2" else "3") + text[at + 1:]
            with pytest.raises(Exception, match="no recovery key"):
                master.from_recovery(wrong)
    for text in ("", "abcd", "é" * 56, "0" * 57):
        with pytest.raises(Exception, match="no recovery key"):
            master.from_recovery(text)


def test_a_new_master_key_opens_what_the_old_one_sealed_and_rewrap_seals_it_anew(client, secret, monkeypatch):
    unlimited(monkeypatch)
    before = master.read(master.path())
    told = vault.rotate()
    assert master.recovery(master.read(master.path())) == told and master.read(master.path()) != before
    vault._data_keys.clear()
    assert all(shown(client, key).data["value"] == value for key, value in secret.items())
    client.post("/credentials", {"key": "NEWEST", "value": "n"})
    assert vault.rewrap() == 12 and vault.rewrap() == 0
    assert db.all(tuple, "SELECT id FROM vault_keys WHERE :tenant") == [(2,)] and db.value("SELECT min(vault_key_id) FROM credential_versions WHERE :tenant") == 2
    vault._data_keys.clear()
    assert all(shown(client, key).data["value"] == value for key, value in (secret | {"NEWEST": "n"}).items())
    master.write(master.path(), before)
    vault._data_keys.clear()
    assert shown(client, "KEY_1").code == "vault_sealed", "the old master key opens nothing any more"


class Killed(BaseException):
    """What a kill is to the code that it ends."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(24))
def test_a_change_of_keys_that_is_killed_at_any_moment_loses_nothing(client, secret, monkeypatch, moment):
    """Each step that touches a file or the database may be the last one: before it, or in the middle of the transaction."""
    unlimited(monkeypatch)
    steps = iter(range(1000))

    def killing(fn):
        def step(*args, **more):
            if next(steps) == moment:
                raise Killed
            return fn(*args, **more)
        return step

    with monkeypatch.context() as patch:
        for place, name in ((os, "replace"), (os, "fsync"), (master, "write"), (db, "run"), (vault, "_add_data_key"), (master, "settle"), (master, "put_next")):
            patch.setattr(place, name, killing(getattr(place, name)))
        try:
            vault.rotate()
            vault.rewrap()
            finished = True
        except Killed:
            finished = False
    vault._data_keys.clear()
    assert finished or next(steps) == moment + 1
    for key, value in secret.items():
        assert shown(client, key).data["value"] == value, (moment, key)
    assert client.post("/credentials", {"key": "KEY_1", "value": "after"}).status == 201 and shown(client, "KEY_1").data["value"] == "after"
    vault.rotate(), vault.rewrap()
    assert shown(client, "KEY_2").data["value"] == secret["KEY_2"]


def test_a_change_of_keys_keeps_the_old_one_for_older_backups_and_other_folders(client, secret, monkeypatch, tmp_path):
    old = master.read(master.path())
    rows = db.all(dict, "SELECT * FROM vault_keys WHERE :tenant")
    vault.rotate()
    assert master.find(master.id_of(old)) == old and master.read(master.path()) != old
    db.write(lambda: [db.run("UPDATE vault_keys SET kek_id = :kek_id, nonce = :nonce, wrapped = :wrapped WHERE id = :id AND :tenant", **row, ) for row in (
        {name: row[name] for name in ("id", "kek_id", "nonce", "wrapped")} for row in rows)])
    vault._data_keys.clear()
    assert shown(client, "KEY_1").data["value"] == secret["KEY_1"], "a database of before opens still"
    for _ in range(2):
        vault.rotate()
    assert len(list(master.path().parent.glob("master.key.????????????????"))) == 3


def test_a_recovery_key_never_takes_the_place_of_another_folders_key(client, secret):
    mine = vault.recovery_key()
    master.write(master.path(), random_bytes.token_bytes(32))  # another data folder of the same person made its own
    other = master.path().read_bytes()
    vault._data_keys.clear()
    assert shown(client, "KEY_1").code == "vault_sealed"
    with acting(system()):
        file = vault.import_key(mine)
    assert file != master.path() and master.path().read_bytes() == other and shown(client, "KEY_1").data["value"] == secret["KEY_1"]


def test_two_changes_of_keys_at_once_are_one_after_the_other(client, secret):
    with master.alone(), pytest.raises(Conflict):
        vault.rotate()
    results = []

    def change():
        with acting(system()):
            try:
                results.append(vault.rotate())
            except Conflict:
                results.append(None)
    threads = [threading.Thread(target=change) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    vault._data_keys.clear()
    assert any(results) and vault.recovery_key() in results and shown(client, "KEY_1").data["value"] == secret["KEY_1"]


# ── the commands, and another machine ──


@pytest.mark.slow
def test_the_recovery_key_is_shown_once_confirmed_and_enough_on_another_machine(server, tmp_path):
    running = server(folder=tmp_path / "one" / "data", env={"ORKOSI_MASTER_KEY_FILE": str(tmp_path / "one" / "master.key"), "HOME": str(tmp_path / "one")})
    setup, lines = None, []
    for line in iter(running.process.stdout.readline, ""):
        lines.append(line)
        setup = setup or (line.split("/setup/")[1].strip() if "/setup/" in line else None)
        if "vault confirm" in line:
            break
    assert not RECOVERY.search("".join(lines)), "it is said into a pipe"
    token = running.call("POST", "/auth/setup", {"token": setup, "username": "root", "email": "root@example.com", "password": "correct horse battery"})[1]["token"]
    running.call("POST", "/agents", {"name": "felix"}, token)
    running.call("POST", "/credentials", {"key": "A_KEY", "value": "the value", "grants": ["felix"]}, token)
    one = {"folder": running.folder, "env": {"ORKOSI_MASTER_KEY_FILE": str(tmp_path / "one" / "master.key")}}
    recovery = command("vault", "recovery-key", **one).stdout.strip()
    assert "not confirmed" in command("vault", "status", **one).stdout
    assert command("vault", "confirm", stdin="WXYZ\n", check=False, **one).returncode and "noted as kept" in command("vault", "confirm", stdin=recovery[-4:] + "\n", **one).stdout
    assert "somebody said" in command("vault", "status", **one).stdout and command("vault", "recovery-key", **one).stdout.strip() == recovery
    assert not RECOVERY.search(command("vault", "rotate", **one).stdout) and command("vault", "recovery-key", **one).stdout.strip() != recovery
    recovery = command("vault", "recovery-key", **one).stdout.strip()
    running.stop()

    there = tmp_path / "two" / "data"
    there.parent.mkdir()
    running.folder.rename(there)
    for file in (there / "keys").iterdir():
        file.unlink()
    two = {"ORKOSI_MASTER_KEY_FILE": str(tmp_path / "two" / "master.key"), "HOME": str(tmp_path / "two")}
    sealed = server(folder=there, env=two)
    assert sealed.call("GET", "/credentials/A_KEY", None, token)[1]["error"]["code"] == "vault_sealed"
    other = master.recovery(random_bytes.token_bytes(32))
    refused = command("vault", "import-key", folder=there, env=two, stdin=other + "\n", check=False)
    assert refused.returncode and "another vault" in refused.stderr and not (tmp_path / "two" / "master.key").exists()
    assert "is open" in command("vault", "import-key", folder=there, env=two, stdin=recovery + "\n").stdout
    assert sealed.call("GET", "/credentials/A_KEY", None, token)[1]["data"]["value"] == "the value", "without a new start"
    raw = eventually(lambda: (there / "keys/felix").exists() and (there / "keys/felix").read_text().strip())
    assert sealed.call("GET", "/credentials/A_KEY", None, raw)[1]["data"]["value"] == "the value", "the agent has a new key"
    assert "new key" in command("agent", "rekey", "felix", folder=there, env=two).stdout
    assert sealed.call("GET", "/auth/me", None, raw)[0] == 401 and sealed.call("GET", "/auth/me", None, (there / "keys/felix").read_text().strip())[0] == 200


@pytest.mark.slow
def test_no_key_stands_where_others_read(server, tmp_path):
    """Neither the master key nor its recovery key is in an argument of a process, in the data folder, in a log or in the description of the API."""
    running = server()
    admin = server.admin(running)
    running.call("POST", "/credentials", {"key": "A_KEY", "value": "canary-value-1"}, admin)
    running.call("GET", "/credentials/A_KEY", None, admin)
    key = (running.folder.parent / "master.key").read_text().strip().partition(":")[2]
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout + json.dumps(running.call("GET", "/openapi.json"))
    running.stop()
    wanted = [key.encode(), bytes.fromhex(key), master.recovery(bytes.fromhex(key)).encode(), b"canary-value-1"]
    assert not any(one.decode(errors="replace") in said for one in wanted if one != wanted[1])
    for file in running.folder.rglob("*"):
        if file.is_file():
            assert not [one for one in wanted if one in file.read_bytes()], file


def test_readings_are_limited(client, monkeypatch):
    client.post("/credentials", {"key": "A", "value": "x"})
    monkeypatch.setitem(settings.values, "limit_credential_read", "3/m")
    answers = [shown(client, "A") for _ in range(5)]
    assert [one.status for one in answers] == [200, 200, 200, 429, 429] and answers[0].headers["Cache-Control"] == "no-store"


def test_no_record_no_value(client, secret):
    db.writer.execute("CREATE TRIGGER full BEFORE INSERT ON credential_reads BEGIN SELECT RAISE(ABORT, 'no room'); END")
    answer = shown(client, "KEY_1")
    assert answer.status >= 400 and secret["KEY_1"].strip() not in answer.body.decode() and client.get("/credentials").data[1]["last_used_at"] is None


def test_other_tenants_and_their_keys_have_no_vault(as_, application):
    olga = as_("olga", tenant=None)
    assert [olga.get("/credentials").status, olga.post("/credentials", {"key": "A", "value": "x"}).status, olga.delete("/credentials/A").status] == [403] * 3
    with acting(system()):
        home = db.value("SELECT max(id) FROM tenants")
        agent = Client(application, keys.issue(home, "felix", keys.AGENT_SCOPES, agent="felix")[1])
    assert agent.get("/credentials").status == 403


@pytest.mark.parametrize("kind", ["file", "pipe", "terminal"])
def test_a_recovery_key_is_shown_on_a_terminal_alone(tmp_path, kind):
    env = os.environ | {"ORKOSI_NO_INSTALL": "1", "ORKOSI_MASTER_KEY_FILE": str(tmp_path / "master.key"), "ORKOSI_SUPERVISOR": "embedded"}
    reads, out = {"file": lambda: (os.open(tmp_path / "out.log", os.O_CREAT | os.O_RDONLY), os.open(tmp_path / "out.log", os.O_WRONLY)),
                  "pipe": os.pipe, "terminal": os.openpty}[kind]()
    process = subprocess.Popen([sys.executable, str(HOME / "orkosi.py"), "serve", "--port", "0", "--data", str(tmp_path / "data")], stdout=out, stderr=out, env=env)
    os.close(out)
    os.set_blocking(reads, False)
    said = bytearray()

    def heard():
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(reads, 10_000))
        return b"vault confirm" in said
    try:
        assert eventually(heard)
    finally:
        process.terminate()
        process.wait(20)
        os.close(reads)
    recovery = command("vault", "recovery-key", folder=tmp_path / "data", env=env).stdout.strip()
    assert RECOVERY.fullmatch(recovery) and [one[0] for one in RECOVERY.finditer(said.decode())] == ([recovery] if kind == "terminal" else [])
    assert kind == "terminal" or b"vault recovery-key" in said


def test_whoever_is_of_another_tenant_cannot_try_whether_a_guess_is_right(client, as_):
    client.post("/credentials", {"key": "STRIPE_KEY", "value": "sk_live_guess_me_if"})
    ask = lambda who: who.post("/tasks", {"title": "it is sk_live_guess_me_if"}).data["title"]  # noqa: E731
    assert ask(client) == "it is [STRIPE_KEY]" and ask(as_("olga", tenant=None)) == "it is sk_live_guess_me_if"
    client.delete("/credentials/STRIPE_KEY")
    assert ask(client) == "it is sk_live_guess_me_if"


def test_what_is_sealed_while_somebody_asks_what_there_is_is_looked_for(client, monkeypatch):
    client.post("/credentials", {"key": "FIRST", "value": "the first of them"})

    def meanwhile():
        found = credentials.values()
        monkeypatch.setattr(canaries, "_tellers", [credentials.values])
        client.post("/credentials", {"key": "SECOND", "value": "the second of them"})
        return found
    canaries.forget()
    monkeypatch.setattr(canaries, "_tellers", [meanwhile])
    assert canaries.blotted(b"the first of them") == b"[FIRST]" and canaries.blotted(b"the second of them") == b"[SECOND]"


def test_a_secret_that_is_sealed_already_is_sealed_again_as_it_was_sent(client):
    secret = "shared-by-both-repositories"
    made = {"kind": "github", "secret": secret, "title": {"text": f"Not {secret} here"}}
    first, second = (client.post("/hooks", made | {"name": name}).data for name in ("c1", "c2"))
    client.patch(f"/hooks/{first['id']}", {"secret": secret})
    with acting(system()):
        assert [hooks.secret_of(one["id"]) for one in (first, second)] == [secret] * 2
    assert second["title"]["text"] == "Not [secret of hook c1] here"
    for _ in range(2):
        assert client.post("/integrations/stripe/configure", {"fields": {"key": "sk_test_0123456789", "base_url": f"https://x.example/{secret}"}}).status == 200
    assert client.get("/credentials/ORKOSI_STRIPE_KEY").data["value"] == "sk_test_0123456789"
    assert secret not in str(db.all(dict, "SELECT * FROM integrations"))
    assert client.post("/hooks", raw=b'{"secret": "' + secret.encode() + b'", ', headers={"Content-Type": "application/json"}).status == 400


def test_what_a_hook_is_called_or_keeps_changes_no_request_of_others(client):
    for name, secret in (('x","permanent":true,"category":"c', "Be kind to customers"), ("field", "estimated_minutes"), ('Gitlab "prod"', "secret-of-gitlab")):
        assert client.post("/hooks", {"name": name, "kind": "github", "secret": secret, "title": {"text": "x"}}).status == 201
    rule = client.post("/rules", {"rule": "Be kind to customers"}).data
    assert (rule["permanent"], rule["category"]) == (False, "general") and rule["rule"].startswith("[secret of hook x")
    task = client.post("/tasks", {"title": "About secret-of-gitlab", "estimated_minutes": 5, "tags": "a"}).data
    assert task["estimated_minutes"] == 5 and task["title"] == "About [secret of hook Gitlab _prod_]"


def test_large_bodies_are_searched_as_well(client):
    secret = "sk_live_0123456789"
    client.post("/credentials", {"key": "STRIPE_KEY", "value": secret})
    for _number in range(30):
        client.post("/task-queue/submit", {"task_type": "t"})
    jobs = client.post("/task-queue/claim", {"worker_id": "w", "batch_size": 30}).data
    done = client.post("/task-queue/complete", {"jobs": [{"id": one["id"], "lease_token": one["lease_token"], "result": secret + "x" * 60_000} for one in jobs]})
    assert done.status == 200 and db.value("SELECT count(*) FROM jobs WHERE result LIKE '%[STRIPE_KEY]%'") == 30
    assert db.value("SELECT count(*) FROM jobs WHERE result LIKE :secret", secret=f"%{secret}%") == 0


def escaped(text):
    """As any writer of JSON may spell it."""
    return "".join(f"\\u{ord(one):04X}" if at % 3 == 0 else "\\/" if one == "/" else one for at, one in enumerate(text))


def test_a_secret_that_is_spelled_with_escapes_is_found_as_well(client, anonymous):
    secret = "ghs/0123/456789éa"
    client.post("/credentials", {"key": "GH_KEY", "value": secret})
    said, kind = f'"é\\n{escaped(secret)} \\ud83e\\udd85"', {"Content-Type": "application/json"}
    task = client.post("/tasks", raw=f'{{"title": "é{escaped(secret)}", "description": {said}}}'.encode(), headers=kind)
    assert (task.data["title"], task.data["description"]) == ("é[GH_KEY]", "é\n[GH_KEY] 🦅")
    job = client.post("/task-queue/submit", raw=f'{{"task_type": "t", "payload": {{{said}: [{said}]}}}}'.encode(), headers=kind).data
    assert list(client.get(f"/task-queue/{job['id']}").data["payload"].items()) == [("é\n[GH_KEY] 🦅", ["é\n[GH_KEY] 🦅"])]
    client.post("/credentials", raw=f'{{"key": "SAME", "value": "{escaped(secret)}"}}'.encode(), headers=kind)
    assert client.get("/credentials/SAME").data["value"] == secret, "what goes into the vault is what was sent"
    hook = client.post("/hooks", {"name": "in", "kind": "none", "title": {"pointer": "/t", "text": "none"}}).data
    assert anonymous.request("POST", hook["url"].partition("/hooks/")[2], raw=f'{{"t": {said}}}'.encode(), root="/hooks/", headers=kind).status < 300
    (settings.data / "logs").mkdir(exist_ok=True)
    (settings.data / "logs/other.log").write_text(f'{{"level": "info", "message": {said}}}\n')
    while Tailer(settings.data).look():
        pass
    assert db.value("SELECT count(*) FROM log_lines WHERE message LIKE '%[SAME] 🦅%'") == 1
    everything = str([db.all(tuple, f"SELECT * FROM {table}") for table in ("tasks", "jobs", "hook_bodies", "activity", "log_lines")])
    assert everything.count("GH_KEY") >= 3 and secret not in everything and escaped(secret) not in everything


def test_a_key_of_another_folder_keeps_its_place(client, secret):
    ours, theirs = master.read(master.path()), random_bytes.token_bytes(32)
    for mode in (0o600, 0o644):
        master.write(master.path(), theirs)
        os.chmod(master.path(), mode)
        before = master.path().read_text()
        kept = master.keep(ours)
        assert kept != master.path() and master.path().read_text() == before and master.read(kept) == ours


# ── canaries: every door that takes text ──

CANARIES = {f"CANARY_{number}": f"cnry-{number:02}-{random_bytes.token_hex(8)}" + ('"q\\ü' if number % 4 == 0 else "") for number in range(50)}


def texts(schema, value, whole, depth=0):
    """A body in which every text is `value`, as far as the description of the API lets it be one."""
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return texts(next((one for one in schema[either] if one.get("type") != "null"), {}), value, whole, depth)
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    match schema.get("type"):
        case "object":
            return {name: texts(one, value, whole, depth + 1) for name, one in schema.get("properties", {}).items()} or {"note": value}
        case "array":
            return [texts(schema.get("items", {}), value, whole, depth + 1)]
        case "integer" | "number":
            return 1
        case "boolean":
            return False
    return value


def through_addresses(running, whole, admin):
    """Each canary as each parameter of each operation's query and path, and in the headers that somebody may keep; how many were sent."""
    sent = 0
    org = running.call("GET", "/organizations", None, admin)[1]["data"][0]["id"]
    key = running.call("POST", f"/organizations/{org}/api-keys", {"name": "k"}, admin)[1]["data"]["key"]
    values = list(CANARIES.values())
    for path, operations in [*whole["paths"].items(), ("/nowhere/{name}", {"get": {}})]:
        for method, operation in operations.items():
            if path == "/events":
                continue  # it would go on for ever
            for parameter in [*operation.get("parameters", []), {"in": "header", "name": "-"}]:
                value = quote(values[sent % len(values)], safe="")
                where = path.replace("{" + parameter["name"] + "}", value) if parameter["in"] == "path" else path
                where = re.sub(r"\{[^}]*\}", "1", where) + (f"?{parameter['name']}={value}" if parameter["in"] == "query" else "")
                heads = {"User-Agent": value, "Idempotency-Key": value, "X-Request-Id": value, "Referer": value, "Last-Event-Id": value}
                request = urllib.request.Request(f"{running.url}/api{where}", method=method.upper(), headers=(heads if parameter["in"] == "header" else {}) | {
                    "Authorization": f"Bearer {key if sent % 2 else admin}"})
                if method == "delete" and parameter["in"] != "path" or path.startswith("/auth/log"):
                    continue
                try:
                    with urllib.request.urlopen(request, timeout=10) as answer:
                        answer.read()
                except urllib.error.HTTPError as error:
                    assert error.code < 500, (method, where)
                sent += 1
    return sent


@pytest.mark.slow
def test_no_door_that_takes_text_keeps_a_secret(server, stripe_outside, tmp_path):
    """Each canary through each field of each operation, alone and all at once, as the route table has them; then through a log file and a workspace."""
    limits = ("CREDENTIAL_READ", "TASK_CREATE", "REGISTER", "FORGOT", "INVITES", "ORG_INVITES", "TEAM_INVITES", "BILLING")
    running = server(env={f"ORKOSI_LIMIT_{name}": "off" for name in limits} | stripe_outside.env)
    admin = server.admin(running)
    whole = running.call("GET", "/openapi.json")[1]
    running.call("POST", "/agents", {"name": "felix", "interval_sec": 3600}, admin)
    for key, value in CANARIES.items():
        assert running.call("POST", "/credentials", {"key": key, "value": value, "grants": ["felix"]}, admin)[0] == 201
    known = {"POST /tasks": {"title": "x"}, "POST /rules": {"rule": "x"}, "POST /products": {"name": "x"}, "POST /teams": {"name": "x"},
             "POST /notifications": {"title": "x", "message": "x"}, "POST /logs": {"agent": "felix", "message": "x"}, "POST /files": {"name": "x", "path": "x"},
             "POST /task-queue/submit": {"task_type": "x"}, "POST /activity-log": {"actor_type": "user", "actor_id": "1", "action": "x"},
             "POST /tokens/grant": {"company_id": 1, "amount": 1}, "POST /agents/{name}/stop": {}, "POST /agents/{name}/start": {}}
    doors = kept = 0
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            schema = (operation.get("requestBody") or {}).get("content", {}).get("application/json", {}).get("schema")
            if schema is None or path.startswith(("/credentials", "/auth", "/users")):
                continue
            door = f"{method.upper()} {path}"
            where = re.sub(r"\{name\}", "felix", re.sub(r"\{\w*[iI]d\}", "1", path)).replace("{slug}", "x").replace("{token}", "none")
            values = list(CANARIES.values())
            for turn in range(20):  # each door takes others of them
                value = values[(turn + 20 * doors) % len(values)]
                body = texts(schema, value, whole)
                fields = list(body) if isinstance(body, dict) else []
                plans = [body, known.get(door, {}) | ({fields[turn % len(fields)]: body[fields[turn % len(fields)]]} if fields else {})]
                for plan in plans:
                    status, _ = running.call(method.upper(), where, plan, admin)
                    assert status < 500, (door, plan)
                    kept += status in (200, 201)
            doors += 1
    assert doors >= 35 and kept >= 250, (doors, kept)
    assert through_addresses(running, whole, admin) >= 250
    (running.folder / "agents/felix/logs/own.log").write_text("".join(f"INFO it is {value}\n" for value in CANARIES.values()))
    (running.folder / "agents/felix/workspace/notes.md").write_text("\n".join(CANARIES.values()))
    assert eventually(lambda: running.call("GET", "/logs?q=CANARY_49&agent=felix", None, admin)[1]["meta"]["total"] >= 1)
    assert eventually(lambda: "[CANARY_3]" in json.dumps(running.call("GET", "/files/search?q=CANARY_3&ext=md", None, admin)[1]))
    told = json.dumps([running.call("GET", path, None, admin)[1] for path in ("/activity-log", "/agent-runs", "/notifications", "/tasks", "/logs?limit=200", "/rules", "/products")])
    said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout + json.dumps([one[2] for one in stripe_outside.requests])
    backup = running.call("POST", "/backups/trigger", None, admin)[1]["data"]["filename"]
    state = lambda: {one["filename"]: one["verification"] for one in running.call("GET", "/backups", None, admin)[1]["data"]}.get(backup)  # noqa: E731
    assert eventually(lambda: state() == "ok", 30), "a trial restore that is cut off would leave its copy beside"
    running.end()
    said += running.process.communicate(timeout=20)[0]
    key = {"ORKOSI_MASTER_KEY_FILE": str(running.folder.parent / "master.key")}
    command("restore", str(running.folder / "backups" / backup), folder=tmp_path / "restored", env=key)
    folders = (running.folder, tmp_path / "restored")
    own = {folder / "agents/felix" / name for folder in folders for name in ("logs/own.log", "workspace/notes.md")}
    raws = {str(file): file.read_bytes() for folder in folders for file in folder.rglob("*")
            if file.is_file() and file not in own}
    assert len([name for name in raws if name.endswith("orkosi.db")]) == 2
    for value in CANARIES.values():
        core = value[:24]
        assert core not in told and core not in said, (told[max(0, told.find(core) - 300):][:500], value)
        assert not [(name, raw[max(0, raw.index(core.encode()) - 80):][:200]) for name, raw in raws.items() if core.encode() in raw], value
