"""A training step: loss and gradients of a residual CNN."""

import pytest

from tests.capture.tf_handlers.training_programs import PROGRAMS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("opset", [13, 18])
def test_loss_and_all_gradients_equal_tensorflow_at_every_batch(compared, name, opset):
    assert compared("training_programs", name, opset)["error"] < 1e-4
