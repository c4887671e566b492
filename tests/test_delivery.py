"""Delivery: each notification arrives once, when it is not quiet, and the rest in the morning."""
import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from conftest import put

from orkosi import acting, db, now, seconds, settings, system
from plugins import delivery, notifications, queue, schedules
from plugins.queue import executor
from plugins.schedules import slots

ZONE = ZoneInfo(slots.here())


@pytest.fixture
def arrived(posted):
    """What is delivered: the server's own jobs, and the letters that they make."""
    return lambda: posted() + posted()


def notify(title, type="error", tenant=1, **more):
    with acting(system(tenant)):
        return notifications.notify(title, f"about {title}", type=type, **more)


def test_an_error_is_mailed_to_the_administrators_once(client, people, arrived):
    people("ann", "admin", 1), people("bob", "viewer", 1)
    put("tenants", id=2, name="Far", created_at="2026-11-02T10:00:00.000Z")
    people("eve", "admin", 2)
    notify("the roof leaks", source="house", link="/api/tasks/1"), notify("all is well", "info"), notify("mind the step", "warning")
    letters = arrived()
    admins = {row[0] for row in db.all(tuple, "SELECT email FROM users WHERE tenant_id = 1 AND role = 'admin'")}
    assert {one["To"] for one in letters} == admins and len(letters) == len(admins) > 1
    assert letters[0]["Subject"] == "[error] the roof leaks" and letters[0].link.endswith("/api/tasks/1") and "about the roof leaks" in letters[0].text and ", house" in letters[0].text
    one = db.value("SELECT id FROM notifications WHERE type = 'error'")
    with acting(system()):
        assert delivery.by_mail(delivery.Order(one)) == 0, "its job runs twice, and nobody has it twice"
    assert arrived() == []


def test_one_for_a_person_is_mailed_to_that_person(client, people, arrived):
    ann, _ = people("ann", "viewer", 1)
    notify("your key ends", user_id=ann.id)
    assert [one["To"] for one in arrived()] == [ann.email]


def test_another_tenants_is_mailed_to_its_own(client, people, arrived):
    put("tenants", id=2, name="Far", created_at="2026-11-02T10:00:00.000Z")
    eve, _ = people("eve", "admin", 2)
    notify("theirs", tenant=2)
    assert [one["To"] for one in arrived()] == [eve.email]


def test_which_types_are_mailed_can_be_set(client, arrived, monkeypatch):
    monkeypatch.setattr(settings, "notify_mail", "warning, info")
    notify("no"), notify("yes", "warning"), notify("and this", "info")
    assert {one["Subject"] for one in arrived()} == {"[warning] yes", "[info] and this"}
    monkeypatch.setattr(settings, "notify_mail", "none")
    notify("no", "warning")
    assert arrived() == []


@pytest.mark.parametrize("hours, at, wait", [
    ("22:00-07:00", "23:30", 7.5), ("22:00-07:00", "06:59", 1 / 60), ("22:00-07:00", "07:00", 0), ("22:00-07:00", "21:59", 0), ("22:00-07:00", "22:00", 9), ("22:00-07:00", "00:00", 7),
    ("12:00-13:30", "12:30", 1), ("12:00-13:30", "13:30", 0), ("", "23:00", 0), ("at night", "23:00", 0), ("25:00-07:00", "23:00", 0)])
def test_quiet_hours(client, monkeypatch, hours, at, wait):
    monkeypatch.setattr(settings, "quiet_hours", hours)
    hour, minute = map(int, at.split(":"))
    moment = queue.iso(datetime(2026, 11, 27, hour, minute, tzinfo=ZONE).timestamp())
    assert delivery.until_loud(moment) == pytest.approx(wait * 3600)


def test_what_comes_at_night_is_mailed_in_the_morning(client, arrived, monkeypatch):
    now = datetime.now(ZONE)
    monkeypatch.setattr(settings, "quiet_hours", f"{now:%H}:00-{(now.hour + 2) % 24:02d}:00")
    notify("hush")
    assert arrived() == []
    job = db.one(dict, "SELECT * FROM jobs WHERE task_type = 'delivery.mail'")
    assert job["state"] == "delayed" and 3500 < seconds(job["run_at"]) - time.time() <= 7200
    db.write(lambda: db.run("UPDATE jobs SET state = 'waiting', run_at = NULL"))
    assert [one["Subject"] for one in arrived()] == ["[error] hush"]


def test_the_rest_comes_as_a_digest_once(client, arrived, monkeypatch):
    monkeypatch.setattr(settings, "digest_at", "08:00")
    delivery.keep_digest("opened", None)
    with acting(system()):
        plan = schedules.find(queue.OWN, delivery.DIGEST)
    assert plan.cron == "0 8 * * *" and datetime.fromisoformat(plan.slot.replace("Z", "+00:00")).astimezone(ZONE).hour == 8
    notify("mailed by itself"), notify("all is well", "info"), notify("mind the step", "warning")
    assert len(arrived()) == 1
    for n in range(60):
        notify(f"note {n}", "info")
    for _ in range(2):
        with acting(system()):
            delivery.digest(schedules.Due(plan.id, plan.slot))
    letter, = arrived()
    assert letter["Subject"] == "62 notifications since yesterday" and "about mind the step" in letter.text and "… and 12 more" in letter.text and "mailed by itself" not in letter.text
    monkeypatch.setattr(settings, "digest_at", "")
    delivery.keep_digest("opened", None)
    assert db.value("SELECT count(*) FROM schedules") == 0


@pytest.mark.parametrize("days, hours, since", [(1, 1, "yesterday"), (1, 1.5, "yesterday"), (5, 0, "2026-10-24")])
def test_a_digest_leaves_out_nothing_since_the_one_before(client, arrived, monkeypatch, days, hours, since):
    """Also on the day that has 25 hours, and where the server was down when it was due."""
    at = lambda moment: monkeypatch.setattr(time, "time", lambda: moment)  # noqa: E731
    first = datetime(2026, 10, 24, 8, 0, tzinfo=ZONE).timestamp()
    at(first)
    monkeypatch.setattr(settings, "digest_at", "08:00")
    delivery.keep_digest("opened", None)
    due = schedules.Due(1, now())
    with acting(system()):
        assert delivery.digest(due) == 0
        at(first + 600)
        notify("ten past eight", "warning")
        at(first + days * 86400 + hours * 3600)
        assert delivery.digest(due) == 1 and delivery.digest(due) == 0
    letter, = arrived()
    assert letter["Subject"] == f"1 notifications since {since}" and "about ten past eight" in letter.text


def test_it_is_shown_on_the_screen_where_there_is_one(client, tmp_path, monkeypatch):
    """With a stand-in for osascript that writes down what it was given; the text is never a part of the script."""
    program = tmp_path / "osascript"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {tmp_path}/shown\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    notify('roof"; do shell script "touch /tmp/x', "warning")
    with acting(system()):
        for job in queue.claim(executor.OWN, "test", batch=100):
            executor.run(job)
    shown = (tmp_path / "shown").read_text().splitlines()
    assert shown[0] == "-e" and shown[1] == "on run argv" and shown[-2:] == ['roof"; do shell script "touch /tmp/x', 'about roof"; do shell script "touch /tmp/x']
