"""Activations of Keras, elementwise functions, and their gradients."""

import pytest

from tests.capture.tf_handlers.programs import ACTIVATIONS, UNARY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_keras(compared, name):
    assert compared("programs", f"activation {name}")["error"] < 1e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_of_an_activation_equals_tensorflow(compared, name):
    assert compared("programs", f"gradient of {name}")["error"] < 1e-5


@pytest.mark.parametrize("name", UNARY)
def test_gradient_of_a_function_equals_tensorflow(compared, name):
    assert compared("programs", f"gradient of tf {name}")["error"] < 1e-5


@pytest.mark.parametrize("opset", [13, 18])
def test_gelu_is_exact_in_both_forms(compared, opset):
    assert compared("programs", "activation gelu", opset)["error"] < 1e-6
    assert compared("programs", "gelu_tanh", opset)["error"] < 1e-6


def test_erfc_far_from_zero(compared):
    assert compared("programs", "erfc_far_out")["error"] < 1e-6


def test_an_infinity_that_is_not_selected_makes_no_nan(compared):
    made = compared("programs", "select_keeps_infinity_out")
    assert made["error"] < 1e-6
    assert made["ops"]["Where"] == 1
