"""Gradients of broadcasting, slicing, gathering and stitching; losses; Bucketize."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "broadcast_of_unknown_shapes",
        "bias_add_of_unknown_batch",
        "sliced_with_strides",
        "gathered_rows",
        "segment_sum_drops_negative",
        "concat_and_stack",
        "permuted_by_value",
        "sparse_cross_entropy",
        "cross_entropy",
        "bucketized",
        "bucketized_integers",
    ],
)
@pytest.mark.parametrize("opset", [13, 18])
def test_equals_tensorflow(compared, name, opset):
    assert compared("programs", name, opset)["error"] < 1e-5
