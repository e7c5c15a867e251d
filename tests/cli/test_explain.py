import json

import pytest

from graphkit.errors import all_errors

GK301 = """\
GK301: ExtraMissing (exit code 3: this machine lacks something)

A Python package that this request needs is not installed. The remedy is the command that installs it.
"""


@pytest.mark.parametrize("code", ["GK301", "gk301"])
def test_explain(run, code):
    said = run("explain", code)
    assert (said.code, said.out, said.err) == (0, GK301, "")


def test_explain_as_json(run):
    assert json.loads(run("explain", "GK301", "--json").out) == {
        "schema": "graphkit.explain/1",
        "code": "GK301",
        "name": "ExtraMissing",
        "exit_code": 3,
        "explanation": "A Python package that this request needs is not installed. The remedy is the command that "
        "installs it.",
    }


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda e: e.code)
def test_every_code_can_be_explained(run, error):
    said = run("explain", error.code)
    assert said.code == 0
    assert said.out.startswith(f"{error.code}: {error.__name__} (exit code {error.exit_code}: ")
