"""Control flow, functions that stayed calls, lists of loops, Fourier transforms."""

import pytest

from graphkit.errors import UnsupportedOperator
from tests.capture.tf_handlers.flow_programs import FOURIER, FOURIER_2D, LOOPS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["case_of_three", "case_inside_a_case"])
def test_switch_case_is_nested_if(compared, name):
    made = compared("flow_programs", name)
    assert made["error"] < 1e-6
    assert made["ops"]["If"] >= 2


@pytest.mark.parametrize("name", ["compiled_functions", "grouped_conv_layer_left_compiled"])
def test_compiled_functions_are_inlined(compared, name):
    assert compared("flow_programs", name)["error"] < 1e-6


@pytest.mark.parametrize("name", ["scan", "scan_from_a_start_backwards"])
@pytest.mark.parametrize("opset", [13, 18])
def test_scan_equals_tensorflow(compared, name, opset):
    assert compared("flow_programs", name, opset)["error"] < 1e-6


@pytest.mark.parametrize("name", [*LOOPS, "list_read_while_it_is_written", "list_that_grows"])
def test_list_of_a_loop_keeps_its_order_and_length(compared, name):
    assert compared("flow_programs", name)["error"] < 1e-6


def test_a_tensor_that_grows_in_a_loop_has_another_shape_in_each_round(compared):
    assert compared("flow_programs", "tensor_that_grows")["error"] < 1e-6


@pytest.mark.parametrize("name", ["mapped", "list written front to back"])
def test_list_written_in_order_stays_a_scan_output(compared, name):
    made = compared("flow_programs", name)
    assert made["error"] < 1e-6
    assert "ScatterND" not in made["ops"]


def test_list_out_of_order_with_unknown_elements_is_refused(compared):
    with pytest.raises(UnsupportedOperator, match=r"TensorArray.*the shape of an element is not known"):
        compared("flow_programs", "list_of_unknown_elements")


@pytest.mark.parametrize("name", [*FOURIER, "rfft_of_one_signal"])
def test_fourier_transform_equals_tensorflow(compared, name):
    assert compared("flow_programs", name)["error"] < 1e-5


@pytest.mark.parametrize("name", FOURIER_2D)
def test_fourier_transform_of_images_equals_tensorflow(compared, name):
    assert compared("flow_programs", name)["error"] < 1e-5


@pytest.mark.parametrize("name", ["rfft2d static [4, 9]", "irfft2d static [8, 6]", "fft2d static whole"])
def test_fourier_transform_of_images_of_known_size_needs_no_dft(compared, name):
    made = compared("flow_programs", name, 13)
    assert made["error"] < 1e-5
    assert "DFT" not in made["ops"]


@pytest.mark.parametrize("name", ["rfft static 8", "irfft static 16", "fft static whole", "stft static whole"])
def test_fourier_transform_of_known_length_needs_no_dft(compared, name):
    made = compared("flow_programs", name, 13)
    assert made["error"] < 1e-5
    assert "DFT" not in made["ops"]


def test_fourier_transform_of_unknown_length_is_refused_without_dft(compared):
    with pytest.raises(UnsupportedOperator) as refused:
        compared("flow_programs", "fft dynamic whole", 13)
    assert "from opset 17 on" in refused.value.render()


@pytest.mark.parametrize(
    ("name", "op"),
    [("complex_input", "ComplexAbs"), ("complex_tensor_transposed", "RFFT"), ("rfft2d_into_a_cosine", "RFFT2D")],
)
def test_complex_tensor_is_refused_where_its_last_axis_would_be_taken_for_another(compared, name, op):
    with pytest.raises(UnsupportedOperator, match=op):
        compared("flow_programs", name)
