"""The shape of the house, tested and not hoped for: layers, ownership, tenancy, sizes, words."""
import ast
import functools
import hashlib
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path

import apsw
import apsw.ext
import pytest

import orkosi

orkosi.load()
from plugins.storage import model_of  # noqa: E402

HOME = Path(orkosi.HOME)
SCHEMA = (HOME / "schema.sql").read_text()
FILES = sorted(HOME.glob("plugins/*/*.py"))
KERNEL_LINES, FILE_LINES, FUNCTION_LINES = 1400, 400, 40


@functools.cache
def parsed(file):
    """A file of the code as a tree, which nobody here changes."""
    return ast.parse(file.read_text())


def owners():
    """table → the plugin whose banner it stands under."""
    found, owner = {}, ""
    for line in SCHEMA.splitlines():
        if banner := re.match(r"-- ═+ (\w+) ═+", line):
            owner = banner[1]
        elif table := re.match(r"CREATE (?:VIRTUAL )?TABLE (?:logs\.)?(\w+)", line):
            found[table[1]] = owner
    return found


OWNERS = owners()
MODEL = model_of(SCHEMA)
TENANT_OWNED = {name for name in OWNERS
                if any(row[1] == "tenant_id" for space in ("main", "logs") for row in MODEL.execute(f"PRAGMA {space}.table_xinfo({name})"))}


class Statement:
    def __init__(self, file, sql, line, function, marked, name):
        self.file, self.sql, self.line, self.function, self.marked = file, sql, line, function, marked
        self.place = f"{file.parent.name}/{file.name}:{function or name}"  # the function, or the constant

    def __repr__(self):
        return f"{self.file.parent.name}/{self.file.name}:{self.line}"


def statements():
    """Every SQL text of every plugin: plain, or an f-string over the module's own constants."""
    found = []
    for file in FILES:
        tree = parsed(file)
        name = f"plugins.{file.parent.name}" + ("" if file.stem == "__init__" else f".{file.stem}")
        world = vars(sys.modules[name]) if name in sys.modules else {}
        marked = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
                  and any("across_tenants" in ast.unparse(one) for one in node.decorator_list)}
        docs = {id(node.body[0].value) for node in ast.walk(tree)
                if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) and node.body and isinstance(node.body[0], ast.Expr)}
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            text = text_of(node, world, docs)
            if text is None or isinstance(parents.get(node), ast.JoinedStr):
                continue
            above, function = node, ""
            while above in parents:
                above = parents[above]
                if isinstance(above, ast.FunctionDef):
                    function = above.name
            used_by = {function} if function else users_of(tree, parents[node])
            constant = ast.unparse(parents[node].targets[0]) if isinstance(parents[node], ast.Assign) else ""
            found.append(Statement(file, text, node.lineno, function, used_by <= marked, constant))
    return found


def text_of(node, world, docs):
    if id(node) in docs:
        return None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        try:
            text = eval(compile(ast.Expression(node), "sql", "eval"), dict(world))
        except (NameError, KeyError, AttributeError, TypeError):
            return None
    else:
        return None
    return text if re.match(r"\s*(SELECT|INSERT INTO|INSERT OR|UPDATE \w+\s+SET|DELETE FROM|WITH RECURSIVE)\s", text) else None


def users_of(tree, assignment):
    """The functions that mention a module constant."""
    names = {target.id for target in getattr(assignment, "targets", []) if isinstance(target, ast.Name)}
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
            and any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(node))}


STATEMENTS = statements()


def info(sql):
    return apsw.ext.query_info(MODEL, sql, actions=True)


def tables(sql, kinds):
    found = set()
    for action in info(sql).actions:
        if action.action_name in kinds and action.trigger_or_view is None:
            found.add(getattr(action, "table_name", None))
    return found & set(OWNERS)


def test_sql_is_found():
    assert len(STATEMENTS) > 60


@pytest.mark.parametrize("one", STATEMENTS, ids=repr)
def test_every_statement_compiles_against_the_schema(one):
    info(one.sql)


@pytest.mark.parametrize("one", STATEMENTS, ids=repr)
def test_a_table_is_written_by_its_owner_alone(one):
    for table in tables(one.sql, ("SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE")):
        assert OWNERS[table] == one.file.parent.name, f"{table} belongs to {OWNERS[table]}"


@pytest.mark.parametrize("one", STATEMENTS, ids=repr)
def test_a_statement_stays_in_its_tenant_or_says_that_it_does_not(one):
    touched = tables(one.sql, ("SQLITE_READ", "SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE")) & TENANT_OWNED
    assert not touched or ":tenant" in one.sql or one.marked, f"{one.function} touches {touched} without :tenant"


def test_tables_are_named_by_their_owner_in_calls_too():
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("db.insert", "db.patch", "db.delete"):
                table = node.args[0 if ast.unparse(node.func) == "db.delete" else 1].value
                assert OWNERS[table] == file.parent.name, f"{file}: {table}"


# ── indexes ──


def indexes():
    """(name, table, columns, partial, the comment above it) of every index of schema.sql."""
    text = re.sub(r"\n  WHERE", " WHERE", SCHEMA)
    for found in re.finditer(r"^(.*)\nCREATE (?:UNIQUE )?INDEX (?:logs\.)?(\w+) ON (\w+) \((.+?)\)( WHERE .*)?;$", text, re.M):
        columns = [re.sub(r"ifnull\((\w+).*|(\w+) COLLATE.*", lambda inner: inner[1] or inner[2], one) for one in re.split(r", (?!'')", found[4])]
        yield found[2], found[3], columns, found[5] or "", found[1]


INDEXES = {one[0]: one for one in indexes()}


def plans():
    """index → the plugins that have a query which SQLite answers by it: plain statements, and lists narrowed by one thing or two."""
    from test_listings import LISTINGS
    queries = [(one.file.parent.name, one.sql) for one in STATEMENTS]
    for name, listing in LISTINGS.items():
        for given in [(), *((one,) for one in listing.filters), *itertools.combinations(listing.filters, 2)]:
            queries += [(name.partition(".")[0], sql) for sql in listing.sql(given)]
    found = {}
    for plugin, sql in queries:
        for row in MODEL.execute("EXPLAIN QUERY PLAN " + sql, dict.fromkeys(re.findall(r":(\w+)", sql), "1")):
            for index in re.findall(r"INDEX (idx_\w+)", row[3]):
                found.setdefault(index, set()).add(plugin)
    return found


GROWING = {"jobs", "tasks", "agent_runs", "activity", "notifications", "log_lines", "webhook_deliveries", "token_ledger"}
WHOLE = {  # what reads all of a tenant's rows, and why that may be
    "activity/__init__.py:erase": "a person is erased", "notifications/__init__.py:erase": "a person is erased",
    "billing/hearing.py:_tell_of_unpaid": "once an invoice that was not paid", "billing/plans.py:_tell_of_two": "once, where two plans were bought",
    "costs/sums.py:check": "sums are counted again", "tasks/sums.py:check": "sums are counted again", "tasks/sums.py:fill": "once, by an upgrade",
    "tokens/__init__.py:reconcile": "a ledger is counted again", "delivery/__init__.py:_mail_digest": "once a day",
    "demo/__init__.py:empty": "it asks whether there is any"}
PART = r"_(active|waiting|delayed|unread|open|done|todo|running|finished|unmailed)_by"  # an index of few, or of what is asked about


def walked(sql):
    """The growing tables of which a statement reads all rows of a tenant, of a queue or of an agent, without an end."""
    if re.search(r"LIMIT|max\(id\)|min\((id|queue)\)", sql):
        return set()
    plan = [row[3] for row in MODEL.execute("EXPLAIN QUERY PLAN " + sql, dict.fromkeys(re.findall(r":(\w+)", sql), "1"))]
    steps = [re.match(r"(SCAN|SEARCH) (\w+)(?: USING (?:COVERING )?INDEX (\w+))?(?: \((.*)\))?", line) for line in plan]
    return {one[2] for one in steps if one and one[2] in GROWING and not re.search(PART, one[3] or "")
            and (one[1] == "SCAN" or one[4] in ("tenant_id=?", "tenant_id=? AND queue=?", "tenant_id=? AND agent=?", "tenant_id=? AND assignee=?"))}


def test_nothing_reads_all_that_there_ever_was():
    """Who asks what is under lease, or open, or of a day, must not wait for a million that were over long ago."""
    from plugins import bull, dashboard
    from plugins.queue import seeing
    found = {}
    for one in STATEMENTS:
        found.setdefault(one.place, set()).update(walked(one.sql))
    assert {place for place in found if found[place]} == set(WHOLE)
    for sql in [*dashboard._CLAIMS, bull._RANGES["active"], *(f"SELECT 1 FROM jobs WHERE {of}" for of in seeing._OF_STATE.values())]:
        assert not walked(sql.partition(" LIMIT")[0]), sql


def test_every_index_is_named_by_one_pattern():
    assert len(INDEXES) == len(re.findall(r"CREATE.* INDEX", SCHEMA)) > 60
    for name, table, columns, where, _ in INDEXES.values():
        said = re.fullmatch(rf"idx_{table}_(?:([a-z]+)_)?by_(\w+)", name)
        assert said, f"{name}: an index of {table} is idx_{table}_by_<columns>"
        columns = columns[1:] if columns[0] == "tenant_id" else columns
        assert said[2] in ["_".join(columns[:count + 1]) for count in range(len(columns))], f"{name} is not by {columns}"
        some = where and not re.fullmatch(rf" WHERE {columns[0]} IS NOT NULL| WHERE {columns[-1]} IS NOT NULL", where)
        assert bool(said[1]) == bool(some), f"{name}: a word before `by`, and only there, says which rows of {table} it holds:{where or ' all'}"


def test_every_index_is_needed_by_the_query_that_its_comment_names():
    used, wrong = plans(), []
    for name, table, columns, _, comment in INDEXES.values():
        named = re.findall(r"\b([a-z]\w*)(?:\.\w+)*\.(\w+)", comment if comment.startswith("-- ") else "")
        if "ON DELETE" in comment:
            if columns[0] not in {row[3] for row in MODEL.execute(f"PRAGMA foreign_key_list({table})")}:
                wrong.append(f"{name}: {columns[0]} is no foreign key")
        elif not named:
            wrong.append(f"{name}: the line above says which query needs it, as plugin.verb or plugin.STATEMENT")
        for plugin, what in named:
            if not any(hasattr(module, what) for path, module in sys.modules.items() if re.match(rf"plugins\.{plugin}(\.|$)", path)):
                wrong.append(f"{name}: there is no {what} in {plugin}")
            elif plugin not in used.get(name, ()):
                wrong.append(f"{name}: SQLite answers nothing of {plugin} by it, but of {used.get(name)}")
    assert not wrong, "\n".join(wrong)


def test_the_log_of_activities_has_no_more_indexes_than_it_needs():
    """Each costs every write of the company: one for the list, one for each thing it is narrowed by, and one for the statistics."""
    from plugins.activity import ENTRIES
    assert len([1 for one in INDEXES.values() if one[1] == "activity"]) == 1 + len(ENTRIES.filters) + 1


# What the schema of each version was, as `fingerprint` has it. A line that was released is never changed.
VERSIONS = {2: "89696b482fa22b6c", 3: "85dea7804090c3e1", 4: "1947c53da06c3fd1", 5: "e020176fa79284f2", 6: "766046d6190d77a8", 7: "c25bbc389016970b", 8: "9691b8fbd702b58a", 9: "f8af09e02da32faf",
            10: "1768667831129196", 11: "8d5b4eadd3b8020e", 12: "4dab9e7d705a5e1c", 13: "4dcf707eb6f01e54",
            14: "d60a5986de01b798", 15: "e28030b9aaff183f", 16: "5bcec75d7403b9d2", 17: "ca09fe8c4bf93f1e", 18: "b9da873f12ab34de",
            19: "c80c6a440236efe1", 20: "b326a684ddd5cd51", 21: "756ae27366dbe14b", 22: "9abc42dc9dc8cd89", 23: "ecfe0d404ec7bd1d"}


def fingerprint(model):
    """A hash of what a schema says, whatever its comments, its spaces and the order of its tables."""
    said = [re.sub(r"('(?:[^']|'')*')|--[^\n]*", lambda found: found[1] or "", sql) for space in ("main", "logs")
            for sql, in model.execute(f"SELECT sql FROM {space}.sqlite_schema WHERE sql IS NOT NULL")]
    return hashlib.sha256("\n".join(sorted("".join(one.split()) for one in said)).encode()).hexdigest()[:16]


def test_the_version_rises_with_the_schema():
    version, found = MODEL.pragma("user_version"), fingerprint(MODEL)
    after = max(VERSIONS) + 1
    assert version == max(VERSIONS), f"schema.sql says version {version}: add {version}: \"{found}\" to VERSIONS, and keep the lines before it"
    assert VERSIONS[version] == found, (f"The schema has changed, so an Orkosi of before must not open what this one writes: say `PRAGMA user_version = {after};` "
                                        f"in schema.sql, and add {after}: \"{found}\" to VERSIONS")
    assert len(set(VERSIONS.values())) == len(VERSIONS)


def imports(file):
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "plugins":
                yield from ((alias.name, "") for alias in node.names)
            elif node.module.startswith("plugins."):
                _, name, *rest = node.module.split(".")
                yield name, ".".join(rest)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_imports_go_down_or_to_what_a_plugin_needs(file):
    mine = orkosi.plugins[file.parent.name]
    for name, inner in imports(file):
        if name == mine.name:
            continue
        other = orkosi.plugins[name]
        assert inner != "api", f"nobody imports an api: {name}.{inner}"
        lower = orkosi.LAYERS.index(other.layer) < orkosi.LAYERS.index(mine.layer)
        assert lower or name in mine.needs, f"{mine.name} ({mine.layer}) imports {name} ({other.layer}) without needing it"


def test_nothing_needs_itself_in_a_circle():
    def ahead(name, seen=()):
        assert name not in seen, " → ".join([*seen, name])
        for other in orkosi.plugins[name].needs:
            ahead(other, (*seen, name))
    for name in orkosi.plugins:
        ahead(name)


def test_the_kernel_knows_no_table():
    tree = ast.parse((HOME / "orkosi.py").read_text())
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module))
            and isinstance(node.body[0], ast.Expr)}
    said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs]
    for table in set(OWNERS):
        assert not [text for text in said if re.search(rf"\b{table}\b", text)], table
    assert not [text for text in said if text.startswith(("/api", "http"))], "the kernel knows no URL"
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    nouns = {*orkosi.RANKS, "agent", "task", "team", "organization", "product", "billing", "invoice"}
    assert (nouns & (names | set(said))) == set(), "the kernel knows no product noun"


@pytest.mark.parametrize("file", [HOME / "orkosi.py", *FILES], ids=lambda file: f"{file.parent.name}/{file.name}")
def test_sizes_and_openings(file):
    text = file.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= (KERNEL_LINES if file.name == "orkosi.py" else FILE_LINES)
    assert ast.get_docstring(tree), "every file opens with what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, f"{node.name} is longer than a screen"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_public_functions_say_what_they_do_and_nobody_catches_everything(file):
    tree = parsed(file)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and file.name == "__init__.py":
            assert ast.get_docstring(node) or len(node.body) == 1, f"{node.name} has no docstring"
    loops = {"executor.py": 1, "call.py": 1, "lanes.py": 1, "flushing.py": 1, "__init__.py": 1 if file.parent.name in ("health", "search") else 0}
    broad = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)
             and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))]
    assert len(broad) <= loops.get(file.name, 0), "only the loops catch everything"


def test_every_verb_plugin_and_setting_says_what_it_is():
    for name in ("get", "command", "service", "job", "every", "on", "health", "search", "authenticator", "setting"):
        assert name in inspect.getdoc(orkosi.Plugin)
    for plugin in orkosi.plugins.values():
        assert plugin.title and sys.modules[f"plugins.{plugin.name}"].__doc__
    assert all(one.sentence for one in orkosi.settings.known.values())


def test_every_operation_has_a_policy_and_a_name_of_its_own():
    names = [one.operation for one in orkosi.endpoints()]
    assert len(names) == len(set(names))
    assert all(isinstance(one.auth, orkosi.Policy) for one in orkosi.endpoints())


def test_the_readme_lists_every_command():
    readme = (HOME / "README.md").read_text()
    for plugin in orkosi.plugins.values():
        for command in plugin.commands:
            assert f"orkosi.py {command.name}" in readme, command.name


def test_the_script_and_the_plugins_share_one_kernel():
    done = subprocess.run([sys.executable, str(HOME / "orkosi.py"), "routes"], capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "ORKOSI_NO_INSTALL": "1"})
    assert done.returncode == 0 and "/api/tasks" in done.stdout, done.stderr


def test_the_kernel_parses_on_an_old_python():
    ast.parse((HOME / "orkosi.py").read_text(), feature_version=(3, 9))


def test_importing_the_kernel_does_nothing():
    done = subprocess.run([sys.executable, "-c", "import orkosi, threading, os; print(threading.active_count(), orkosi.db.folder)"],
                          capture_output=True, text=True, cwd=HOME)
    assert done.stdout.split() == ["1", "None"], done.stderr


def test_a_second_sqlite_never_comes_into_the_server():
    code = ("import sys; sys.path.insert(0, '.'); import orkosi; orkosi.load(); from plugins.server.application import Application; Application(); "
            "import plugins.server.http; print([name for name in ('sqlite3', '_sqlite3', 'sqlite_utils', 'stripe') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    for file in [HOME / "orkosi.py", *FILES]:
        assert not re.search(r"^\s*(import|from) (sqlite3|sqlite_utils)\b", file.read_text(), re.M)


@pytest.mark.parametrize("word", [r"/(home|Users|root)/\w", r"\bissue #?\d"])
def test_the_project_speaks_of_itself_alone(word):
    for file in [HOME / "orkosi.py", HOME / "schema.sql", HOME / "pyproject.toml", *FILES]:
        assert not re.search(word, file.read_text()), file


def test_every_connection_is_set_up_to_the_last_pragma(data):
    assert orkosi.db.flusher, "it flushes what the writer commits"
    for con, sync in ((orkosi.db.writer, 1), (orkosi.db._reader(), 2)):
        pragmas = {name: con.pragma(name) for name in ("foreign_keys", "trusted_schema", "fullfsync", "checkpoint_fullfsync", "cache_size",
                                                       "secure_delete", "cell_size_check", "mmap_size")}
        assert pragmas == {"foreign_keys": 1, "trusted_schema": 0, "fullfsync": 1, "checkpoint_fullfsync": 1, "cache_size": -1024,
                           "secure_delete": 1, "cell_size_check": 1, "mmap_size": 0}
        modes = [con.execute(f"PRAGMA {space}.{name}").fetchall()[0][0] for space in ("main", "logs") for name in ("journal_mode", "synchronous")]
        assert modes == ["wal", sync, "wal", 1] and con.execute("PRAGMA logs.cache_size").fetchall() == [(-1024,)]


# ── words that must be known ──


def calls(*names):
    """Every call of such a function in the plugins: (file, node)."""
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield file, node


def told():
    """Every event that somebody tells of, as far as it is written out: a call's first argument, or the values of a table there."""
    found = set()
    for _, node in calls("emit"):
        found |= {one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    for _, node in calls("want"):
        found |= {one.value for one in node.args[3:4] if isinstance(one, ast.Constant)}
    for _, node in calls("_back"):  # which tells of the event it is given
        found.add(node.args[1].value)
    return found


def test_every_event_that_is_heard_is_told():
    known = told()
    for plugin in orkosi.plugins.values():
        for name, _, fn in plugin.listeners:
            heard = {one for one in known if name in (one, "*") or (name.endswith(".*") and one.startswith(name[:-1]))}
            assert heard, f"{plugin.name}.{fn.__name__} hears {name!r}, of which nobody tells"
    assert {"task.done", "job.claimed", "serving", "user.erased"} <= known


def test_every_scope_that_an_operation_names_is_one():
    from plugins.keys import SCOPES
    for one in orkosi.endpoints():
        assert not one.auth.scope or set(one.auth.scope.split(" or ")) <= set(SCOPES) or "<" in one.auth.scope, f"{one.operation} asks for {one.auth.scope!r}"


@pytest.mark.parametrize("limit, lane, said", [("nothing", "disk", "limit_nothing"), ("", "fast", "lane 'fast'")])
def test_an_unknown_limit_or_lane_stops_the_start(monkeypatch, limit, lane, said):
    from plugins.server.application import Application
    one = orkosi.endpoints()[0]
    monkeypatch.setattr(one, "limit", limit)
    monkeypatch.setattr(one, "lane", lane)
    with pytest.raises(TypeError, match=said):
        Application()


def test_every_setting_that_is_asked_for_is_declared():
    """As an attribute, or by a name that is written out."""
    own = {name for name in dir(orkosi.Settings) if not name.startswith("__")} | {"known", "values", "origins"}
    asked = set()
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("settings", "orkosi.settings"):
                asked.add((f"{file.parent.name}/{file.name}", node.attr))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and ast.unparse(node.args[0]) == "settings" and isinstance(node.args[1], ast.Constant):
                asked.add((f"{file.parent.name}/{file.name}", node.args[1].value))
    assert len(asked) > 30
    assert not {one for one in asked if one[1] not in own | set(orkosi.settings.known)}


def test_every_struct_of_the_wire_has_a_name_of_its_own():
    """Where two have one name, the reference would call them by their modules."""
    from plugins.docs.openapi import openapi
    from plugins.server.application import Application
    Application()
    names = set(openapi("http://localhost")["components"]["schemas"])
    assert len(names) > 100 and not [name for name in names if "." in name]


def test_what_is_written_by_one_statement_is():
    """A verb that is `single` has no savepoint to be undone to: a second statement could leave the first one's rows behind."""
    single = [node for file in FILES for node in ast.walk(parsed(file))
              if isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "writes(single=True)" for one in node.decorator_list)]
    assert single
    for verb in single:
        called = [ast.unparse(node.func) for node in ast.walk(verb) if isinstance(node, ast.Call)]
        assert len([one for one in called if one in ("db.run", "db.add", "db.insert", "db.patch", "db.delete", "db.run_many")]) == 1, verb.name
        assert "emit" not in called, f"{verb.name}: listeners write, too"


def test_nobody_gives_the_tenant_to_a_statement():
    """It is whoever acts who has a tenant: one that is given would be silently another."""
    given = [f"{file.parent.name}/{file.name}:{node.lineno}" for name in ("all", "one", "value", "run", "add", "page")
             for file, node in calls(f"db.{name}") if any(word.arg == "tenant" for word in node.keywords)]
    assert not given, given


def test_one_way_to_say_that_a_field_is_wrong():
    """`wrong(field, message)`; a list of several fields, or another problem than Invalid, is written out."""
    left = [f"{file.parent.name}/{file.name}:{node.lineno}" for file, node in calls("Invalid")
            if len(node.args) == 2 and isinstance(node.args[1], ast.List) and len(node.args[1].elts) == 1 and file.parent.name != "fields"]
    assert len(left) <= 1, left  # an invitation that is missing, or closed: two messages for one field


def test_verbs_take_what_they_say():
    """No bare Struct, object or Any as what a verb of a plugin's face takes: mypy would see nothing."""
    vague = []
    for file in FILES:
        for node in parsed(file).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and any("writes" in ast.unparse(one) for one in node.decorator_list):
                vague += [f"{file.parent.name}/{file.name}: {node.name}({arg.arg})" for arg in [*node.args.args, *node.args.posonlyargs, *node.args.kwonlyargs]
                          if arg.annotation is not None and ast.unparse(arg.annotation) in ("Struct", "object") and arg.arg not in ("folder",)]
    assert not vague, vague


def test_the_runner_never_touches_the_database():
    """It is another process, beside the server: what it knows, it asks for over HTTP."""
    for file in (HOME / "plugins/runner").glob("*.py"):
        names = {one.id for one in ast.walk(parsed(file)) if isinstance(one, ast.Name)}
        assert not names & {"db", "apsw", "sqlite3", "writes", "storage"}, file


def test_verbs_ask_who_acts_and_are_not_told():
    """`current()` is the one way."""
    told_who = {f"{file.parent.name}/{file.name}:{node.name}" for file in FILES if file.name != "api.py" and file.parent.name not in ("server",)
                for node in parsed(file).body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
                and any(arg.annotation is not None and ast.unparse(arg.annotation) == "Actor" for arg in node.args.args)}
    assert not told_who
    assert not [1 for _, node in calls("emit") if any(word.arg == "by" for word in node.keywords)], "events do not say who: the activity asks, too"


PARTS = {"members", "invites", "open_invites", "search"}  # pages of what belongs to one row


def test_verbs_have_one_vocabulary():
    others = []
    for file in FILES:
        if file.name == "api.py" or file.parent.name in ("server", "fields"):
            continue
        for node in parsed(file).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                returns = ast.unparse(node.returns) if node.returns else ""
                if (returns.startswith("Page[") and node.name != "page" and node.name not in PARTS) or node.name in ("update", "index", "listed", "entries"):
                    others.append(f"{file.parent.name}/{file.name}: {node.name} -> {returns}")
    assert not [one for one in others if not one.startswith("folders/")], others


def test_a_test_that_sleeps_says_what_for():
    """What must happen soon is waited for, by `eventually`; a fixed time is for what must not happen, for a load, or for a pace."""
    mute = [f"{file.name}:{number}" for file in [*(HOME / "tests").glob("test_*.py"), *(HOME / "tests").glob("faults/*.py")]
            for number, line in enumerate(file.read_text().splitlines(), 1) if re.search(r"\btime\.sleep\([^)]", line) and "  # " not in line]
    assert not mute, mute
