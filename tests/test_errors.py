"""The error tree: one code per class, whose first digit is the exit code, and nothing lost on the way through JSON."""

import json

import pytest

from graphkit import errors
from graphkit.errors import GraphkitError, InternalError, all_errors, from_json

classes = pytest.mark.parametrize("cls", list(all_errors()), ids=lambda c: c.code)


def test_codes_are_unique_and_in_order():
    codes = [cls.code for cls in all_errors()]
    assert len(codes) > 30
    assert codes == sorted(set(codes))


def test_every_class_of_the_module_that_is_no_family_has_a_code():
    families = {"GraphkitError", "Refused", "BadRequest", "Lacking", "Broken"}
    named = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, GraphkitError)}
    assert named - families == {cls.__name__ for cls in all_errors()}


@classes
def test_the_first_digit_of_the_code_is_the_exit_code(cls):
    assert cls.code[:2] == "GK"
    assert len(cls.code) == 5
    assert int(cls.code[2]) == cls.exit_code
    assert cls.exit_code in (1, 2, 3, 4)


@classes
def test_every_class_is_documented_by_sentences_of_its_own(cls):
    text = vars(cls).get("__doc__")
    assert text
    assert len(text) > 30
    assert text.strip().endswith(".")


@classes
def test_an_error_survives_json(cls):
    error = cls(
        "x is 3", where="model.py:4 in Gate.forward", remedy="--shape x=4", details=("a", "b"), data={"n": [1, None]}
    )
    again = from_json(json.loads(json.dumps(error.to_json(), allow_nan=False)))
    assert type(again) is cls
    assert again.to_json() == error.to_json()
    assert again.render() == error.render()
    assert str(again) == "x is 3"


def test_an_unknown_code_is_a_bug_and_keeps_its_words():
    again = from_json({"code": "GK999", "message": "from the future"})
    assert type(again) is InternalError
    assert again.message == "from the future"


def test_the_rendering_holds_code_place_details_and_remedy_in_that_order():
    error = errors.FrozenScalar("`k` = 3", where="m.py:1", details=("one", "two"), remedy="--via script")
    assert error.render().splitlines() == [
        "error[GK106]: `k` = 3",
        "  where: m.py:1",
        "         one",
        "         two",
        "  try:   --via script",
    ]
