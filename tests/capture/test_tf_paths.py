"""Layer paths from the names of TensorFlow operations."""

from __future__ import annotations

import pytest

from graphkit.capture.tf_paths import Layers, plain

KERAS = (
    "x",
    "StatefulPartitionedCall/net_1/encoder_1/block2_1/conv_1/convolution",
    "StatefulPartitionedCall/net_1/conv_1_1/convolution",
    "StatefulPartitionedCall/net_1/conv_2_1/convolution",
    "StatefulPartitionedCall/net_1/shared_1/MatMul",
    "StatefulPartitionedCall/net_1/shared_3/MatMul",
    "StatefulPartitionedCall/net_1/norm_1/batchnorm/mul_1",
    "StatefulPartitionedCall/net_1/mha_1/einsum/Einsum",
    "StatefulPartitionedCall/net_1/mha_1/einsum_1/Einsum",
    "StatefulPartitionedCall/net_1/lstm_1/while/lstm_cell_1/MatMul",
    "Func/StatefulPartitionedCall/input/_2",
)


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ("net_1/encoder_1/block2_1/conv_1/convolution", "encoder.block2.conv"),
        ("net_1/conv_1_1/convolution", "conv_1"),
        ("net_1/conv_2_1/convolution", "conv_2"),
        ("net_1/shared_3/MatMul", "shared"),
        ("net_1/norm_1/batchnorm/mul_1", "norm"),
        ("net_1/mha_1/einsum_1/Einsum", "mha"),
        ("net_1/lstm_1/while/lstm_cell_1/MatMul", "lstm"),
        ("StatefulPartitionedCall_3/net_1/conv_1_1/convolution", "conv_1"),
        ("x", ""),
    ],
)
def test_a_keras_layer_loses_the_number_of_its_scope_and_no_other(operation, path):
    assert Layers.of_names(KERAS).path(operation) == path


def test_known_layers_decide_what_a_number_means():
    names = ("net/conv_1/Conv2D", "net/conv/Conv2D", "net/conv_2/Conv2D")
    known = ("net", "net/conv", "net/conv_2")
    layers = Layers.of_names(names, known)
    assert [layers.path(name) for name in names] == ["conv", "conv", "conv"]
    assert Layers.of_names(("net/conv_2/Conv2D",), ("net", "net/conv_2")).path("net/conv_2/Conv2D") == "conv_2"


def test_scopes_that_are_no_keras_layers_keep_their_names():
    layers = Layers.of_names(("MobilenetV1/Conv2d_1/Conv2D", "MobilenetV1/Conv2d_2/Conv2D"))
    assert layers.path("MobilenetV1/Conv2d_1/Conv2D") == "MobilenetV1.Conv2d_1"
    assert layers.path("head/while/add") == "head"


def test_an_onnx_name_leads_back_to_its_operation():
    layers = Layers.of_names(KERAS)
    for name in ("convolution", "convolution:0", "convolution__12", "convolution__12:0"):
        assert layers.operation(f"net_1/conv_1_1/{name}") == "net_1/conv_1_1/convolution"
    assert layers.operation("const_fold_opt__99") is None


def test_plain_names_have_no_calls():
    assert plain("StatefulPartitionedCall_1/a/PartitionedCall/b") == "a/b"
    assert plain("a/b") == "a/b"
