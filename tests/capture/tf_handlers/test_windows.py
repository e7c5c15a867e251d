"""Pools, convolutions and batch normalisation, with their gradients, at known and unknown sizes."""

import pytest

from tests.capture.tf_handlers.window_programs import CONVS, NORMS, POOLS, TRANSPOSED

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", POOLS)
def test_gradient_of_a_pool_equals_tensorflow(compared, name):
    assert compared("window_programs", name)["error"] < 1e-5


@pytest.mark.parametrize("name", [n for n in POOLS if "3/2 SAME" in n or "3d" in n])
def test_overlapping_windows_add_up_without_an_adding_scatter(compared, name):
    made = compared("window_programs", name, 13)
    assert made["error"] < 1e-5
    assert "ScatterElements" not in made["ops"]


@pytest.mark.parametrize("name", CONVS)
def test_convolution_and_both_gradients_equal_tensorflow(compared, name):
    assert compared("window_programs", name)["error"] < 1e-5


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution_equals_tensorflow(compared, name):
    assert compared("window_programs", name)["error"] < 1e-5


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("opset", [13, 18])
def test_batch_norm_with_statistics_and_gradients_equals_tensorflow(compared, name, opset):
    assert compared("window_programs", name, opset)["error"] < 1e-5


def test_convolution_with_a_kernel_of_unknown_size_equals_tensorflow(compared):
    assert compared("window_programs", "kernel_of_free_size")["error"] < 1e-5


def test_a_quantised_kernel_stands_right_before_its_transposed_convolution(compared):
    made = compared("window_programs", "quantised_transposed")
    assert made["error"] < 1e-5
    assert made["ops"]["Transpose"] == 2  # of the input and the output
