"""Op handlers that tf2onnx 1.17 lacks or gets wrong, and rewrites of the GraphDef before tf2onnx sees it.

A handler that cannot be right raises `emitter.Refusal`, which tf2onnx logs while it leaves the node as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["custom_handlers", "prepare_graph"]


def custom_handlers() -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """The handlers by TensorFlow op, for tf2onnx's `custom_op_handlers`."""
    from graphkit.capture.tf_handlers import (
        activations,
        arithmetic,
        batch_norm,
        bucketize,
        convolution,
        fourier,
        losses,
        pooling,
        resize,
        scatters,
        shapes,
        strings,
    )
    from graphkit.capture.tf_handlers.emitter import as_tf2onnx_handler

    rooms = (
        activations, arithmetic, batch_norm, bucketize, convolution, fourier, losses, pooling, resize, scatters, shapes,
        strings,
    )  # fmt: skip
    return {name: as_tf2onnx_handler(emit) for room in rooms for name, emit in room.handlers().items()}


def prepare_graph(graph_def: Any) -> Any:
    """A copy of a frozen GraphDef in the form that tf2onnx can read."""
    from graphkit.capture.tf_handlers.calls import let_calls_be_inlined
    from graphkit.capture.tf_handlers.cases import cases_to_conditions
    from graphkit.capture.tf_handlers.lists import lists_to_tensors
    from graphkit.capture.tf_handlers.resize import fold_known_sizes

    prepared = type(graph_def)()
    prepared.CopyFrom(graph_def)
    let_calls_be_inlined(prepared)
    cases_to_conditions(prepared)
    lists_to_tensors(prepared)
    fold_known_sizes(prepared)
    return prepared
