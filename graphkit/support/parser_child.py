"""The child's side of the parser: parse, look at the network, and build nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any


def parse(model_path: str, rtx: bool) -> dict[str, Any]:
    """What the parser says of a model.

    Args:
        model_path: A self-contained ONNX file that only graphkit writes to.
        rtx: Which of the two libraries is meant; must agree with the child's environment.

    Returns:
        `taken`, the library's `version`, the parser's `errors` as in `graphkit.engine.trt_child`, a `reason` where it
        refuses without errors, the inputs whose values are `shapes`, and the number of `layers` by type.
    """
    from graphkit.engine import trt_child
    from graphkit.engine.trt_session import open_session

    session = open_session(rtx)
    parsed = trt_child.parse(session, model_path)
    version = str(session.trt.__version__)
    if isinstance(parsed, dict):
        reason = parsed["reason"]
        return {"taken": False, "version": version, "errors": parsed["errors"], "reason": reason, "shapes": []}
    network = parsed[1]
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    layers = Counter(network.get_layer(i).type.name for i in range(network.num_layers))
    return {
        "taken": True,
        "version": version,
        "errors": [],
        "reason": "",
        "shapes": [tensor.name for tensor in inputs if tensor.is_shape_tensor],
        "layers": dict(sorted(layers.items())),
    }
