"""The API contract: 159 operations. What exists must agree with it to the letter; more may be added, nothing may differ.

`contract.json` holds bare facts: method, path, whether a token is needed, parameters, fields, codes.
"""
import json
from pathlib import Path

import msgspec
import pytest

import orkosi

orkosi.load()
from plugins.server.application import Application  # noqa: E402

FACTS = json.loads(Path(__file__).with_name("contract.json").read_text())
OURS = {(one.method, one.path.removeprefix("/api")): one for one in orkosi.endpoints() if one.path.startswith("/api/")}
STANDING = 159  # operations of the contract that exist; it only rises
EXISTING = [fact for fact in FACTS if (fact["method"], fact["path"]) in OURS]


@pytest.fixture(scope="module", autouse=True)
def bound():
    Application()


def test_how_many_operations_exist(capsys):
    assert len(FACTS) == 159
    with capsys.disabled():
        print(f"\n{len(EXISTING)} of {len(FACTS)} operations of the contract exist")
    assert len(EXISTING) == STANDING, "write down the new number, if it is a greater one"


@pytest.mark.parametrize("fact", EXISTING, ids=lambda fact: f"{fact['method']} {fact['path']}")
def test_an_operation_agrees_with_the_contract(fact):
    ours = OURS[fact["method"], fact["path"]]
    success = {code for code in fact["responses"] if code < 400}
    assert success <= set(ours.statuses) and ours.status in success
    assert ours.auth.public is not fact["auth"]
    for one in fact["params"]:
        if one["in"] == "path":
            assert ours.path_types[orkosi.snake(one["name"])] is {"string": str, "integer": int}[one["type"]] or one["type"] == "string"
        else:
            agrees(ours.query_type, one, ours.lists)
    for one in fact["body"]:
        agrees(ours.body_type, one)
    if fact["body"]:
        required = {one["name"] for one in fact["body"] if one["required"]}
        assert {one.name for one in msgspec.structs.fields(ours.body_type) if one.required} == required


def agrees(kind, fact, lists=()):
    """A field of the contract is there, as required as it says, and takes every value it names; one of `lists` with commas between."""
    assert kind is not None, f"{fact['name']}: nothing is taken"
    ours = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    assert fact["name"] in ours, f"{fact['name']} is missing"
    assert ours[fact["name"]].required is fact["required"], fact["name"]
    samples = {"string": "x", "integer": 1, "boolean": True, "object": {}, "string[]": ["x"]}
    values = [samples[fact["type"]]] if fact["type"] in samples else fact["type"].split("|")
    for value in values:
        try:
            msgspec.convert(value.split(",") if fact["name"] in lists else value, ours[fact["name"]].type, strict=False)
        except msgspec.ValidationError as error:
            # A narrower string (a pattern, a length, a list of values) is allowed; another kind of value is not.
            narrower = ("Expected `str`" in str(error) and "got" not in str(error)) or "Invalid enum value" in str(error)
            assert fact["type"] == "string" and narrower, f"{fact['name']}: {value!r}: {error}"
