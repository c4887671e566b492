"""SQL stays portable where that costs nothing: a real PostgreSQL prepares every statement, after a few mechanical renames.

What it cannot prepare stands below with the reason, and the list only gets shorter. Surprise: no server is started. PostgreSQL
runs as one process that reads its commands from standard input and ends with it, in a folder of its own that is then removed.
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile

import pytest
from browser import required
from test_shape import STATEMENTS

from plugins.export.postgres import schema, shared

FULL_TEXT = "full text: SQLite's own tables and MATCH"
LISTS = "a list as one parameter, in JSON: json_each"
ONCE = "DO UPDATE for whatever is in its way, without naming it"

# place: why PostgreSQL does not take it
LEFT = {
    "agents/rows.py:busy": LISTS,
    "agents/rows.py:completed": LISTS,
    "automations/__init__.py:of_agents": LISTS,
    "keys/uses.py:ADD": LISTS,
    "logs/__init__.py:INDEX": FULL_TEXT,
    "logs/erasure.py:_blot": FULL_TEXT,
    "logs/erasure.py:_holding": FULL_TEXT,
    "queue/__init__.py:complete_many": LISTS,
    "queue/deciding.py:pause": ONCE,
    "queue/seeing.py:of_ids": LISTS,
    "queue/seeing.py:whys_of": LISTS,
    "tasks/__init__.py:search": FULL_TEXT,
    "tasks/links.py:open_of": LISTS,
    "tasks/links.py:refuse_circle": LISTS,
}
CEILING = 17  # statements, of which a place may have several


def binary(name):
    """A program of PostgreSQL, also where Debian leaves it out of the path."""
    newest = max(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda path: float(path.split("/")[4]), default="")
    return newest or required(name, "PostgreSQL")


def prepared(number, sql):
    """`PREPARE`, with $1, $2 … for :names."""
    names = []

    def place(found):
        if found[1] is None:
            return found[0]
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"
    return f"PREPARE q{number} AS " + re.sub(r"'(?:[^']|'')*'|:([a-z_]\w*)", place, shared(sql))


@pytest.fixture
def postgres():
    """Run commands, one a line, in a new PostgreSQL; what it wrote. It refuses root: then it is its own user, or nobody."""
    initdb, server = binary("initdb"), binary("postgres")
    folder = tempfile.mkdtemp(prefix="orkosi-pg-")
    who = {}
    if os.getuid() == 0:
        import pwd
        user = max((one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")), key=lambda one: one.pw_name)
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(command, lines=()):
        done = subprocess.run(command, input="".join(line + "\n" for line in lines), capture_output=True, text=True, timeout=60, cwd=folder,
                              env={"PATH": os.defpath, "LC_ALL": "C"}, **who)
        assert done.returncode == 0, done.stderr
        return done
    try:
        run([initdb, "-D", f"{folder}/db", "-U", "orkosi", "--no-sync", "--locale=C", "-E", "UTF8"])
        yield lambda lines: run([server, "--single", "-D", f"{folder}/db", "-c", "log_line_prefix=", "-c", "fsync=off", "template1"], lines)
    finally:
        shutil.rmtree(folder)


def test_postgres_prepares_every_statement_but_those_that_are_known(postgres):
    tables = list(schema())
    done = postgres([*tables, *(prepared(number, one.sql) for number, one in enumerate(STATEMENTS)), "SELECT count(*) AS prepared FROM pg_prepared_statements"])
    said = re.findall(r"^ERROR:  (.*)\n(?:HINT.*\n|DETAIL.*\n)*STATEMENT:  (.*)$", done.stderr, re.M)
    assert not [one for one in said if not one[1].startswith("PREPARE")], "the schema itself"
    refused = {int(re.match(r"PREPARE q(\d+)", statement)[1]): error for error, statement in said}
    assert f'prepared = "{len(STATEMENTS) - len(refused)}"' in done.stdout, "every other statement was prepared"
    for number, error in refused.items():
        one = STATEMENTS[number]
        assert one.place in LEFT, f"{one} in {one.place}: {error}\nSay it in words that PostgreSQL knows, too, if that costs nothing"
    gone = set(LEFT) - {STATEMENTS[number].place for number in refused}
    assert not gone, f"these are portable now; take them from the list: {gone}"
    assert len(refused) == CEILING, f"{len(refused)} of {len(STATEMENTS)} are refused: write that number down if it fell"
