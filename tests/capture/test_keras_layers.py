"""Every class of `keras.layers`: converted and equal, or refused by name, as the table in the docs says."""

from pathlib import Path

import pytest

from fixtures.keras_layers import CASES, NOT_CONVERTED
from graphkit.isolate import Worker

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[2] / "docs/reference/keras-layers.md"
REFUSED = {
    "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup", "TextVectorization",
    "TimeDistributed (Conv2D, free time)",
}  # fmt: skip


@pytest.fixture(scope="module")
def results():
    worker = Worker("TensorFlow", preload=("tensorflow",))
    yield worker.call("fixtures.keras_layers_table:report", timeout=900)
    worker.close()


def test_every_class_has_a_case_or_a_reason(results):
    known = {case.layer for case in CASES} | set(NOT_CONVERTED)
    assert [names for names in results["classes"] if not known & set(names)] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer_is_converted_and_equal_or_refused_by_name(results, case):
    outcome = results["outcomes"][case.name]
    assert outcome["broke"] is None
    if case.name in REFUSED:
        assert outcome["refused"]
    else:
        assert outcome["refused"] is None
        assert outcome["error"] <= 1e-4


def test_the_table_is_what_the_generator_gives(results):
    assert TABLE.read_text(encoding="utf-8") == results["table"]
