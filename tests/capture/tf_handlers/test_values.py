"""Values for which tf2onnx's own translation is silently wrong: negative integers, equal places, empty segments."""

import pytest

from graphkit.errors import UnsupportedOperator
from tests.capture.tf_handlers.value_programs import PROGRAMS

pytestmark = pytest.mark.slow

AT_13 = [n for n in PROGRAMS if n.startswith(("floor", "truncate", "one_hot", "atan2", "saturation")) or "sum" in n]


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_tensorflow(compared, name):
    assert compared("value_programs", name)["error"] < 1e-6


@pytest.mark.parametrize("name", AT_13)
def test_equals_tensorflow_at_the_lowest_opset(compared, name):
    assert compared("value_programs", name, 13)["error"] < 1e-6


@pytest.mark.parametrize("name", ["scatter_nd adds up", "unsorted_segment_max"])
def test_what_only_a_newer_opset_can_add_up_is_refused_below(compared, name):
    with pytest.raises(UnsupportedOperator) as refused:
        compared("value_programs", name, 13)
    assert "on)" in refused.value.render()
