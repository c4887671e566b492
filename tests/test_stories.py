"""Every operation has a story: a test that compares all it answers with values got another way. `emptied.py` says what they are worth."""
import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HOME
from emptied import OPERATIONS


def told():
    """Every operation that a test of this folder is marked as the story of."""
    found = set()
    for file in (Path(HOME) / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text())
        named = {target.id: [one.value for one in node.value.elts] for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
                 for target in node.targets if isinstance(target, ast.Name) and all(isinstance(one, ast.Constant) for one in node.value.elts)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.story":
                for one in node.args:
                    found.update(named[one.value.id] if isinstance(one, ast.Starred) else [one.value])
    return found


def test_every_operation_has_a_story_and_every_story_an_operation():
    assert sorted(set(OPERATIONS) - told()) == [], "these have no story"
    assert sorted(told() - set(OPERATIONS)) == [], "there is no such operation"


@pytest.mark.parametrize("emptied, status", [
    ("GET /api/rules", 1), ("GET /api/rules:category", 1), ("GET /api/rules:query.scope", 1), ("DELETE /api/rules/{id}:kept", 1), ("GET /api/rules:kept", 0)])
@pytest.mark.slow
def test_a_story_fails_where_its_operation_answers_nothing(emptied, status):
    done = subprocess.run([sys.executable, "-m", "pytest", "tests/stories/test_story_rules.py", "-p", "no:cacheprovider", "--emptied", emptied],
                          cwd=HOME, capture_output=True, text=True, env=os.environ)
    assert done.returncode == status, done.stdout[-2000:]


@pytest.mark.slow
def test_what_no_story_notices_is_printed():
    done = subprocess.run([sys.executable, "-m", "pytest", "tests/stories/test_story_rules.py", "-p", "no:cacheprovider", "--emptied", "POST /api/rules*"],
                          cwd=HOME, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0 and "0 are missed by no story" in done.stdout and "POST /api/rules" not in done.stdout, done.stdout[-2000:]
