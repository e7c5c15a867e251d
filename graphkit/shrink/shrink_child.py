"""The child's side: ONNX's own checker and shape inference, which a malformed model can hang or crash."""

from __future__ import annotations

from typing import Any


def check(path: str) -> str | None:
    """Why a file is no valid ONNX model; None where it is."""
    import onnx

    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        return (str(error).strip().splitlines() or ["invalid"])[0]
    return None


def tensor_types(path: str) -> list[tuple[str, int, list[Any] | None]]:
    """Name, element type (as in TensorProto) and dimensions of every tensor of the top graph that has a known type."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model  # a contradiction somewhere: what the file itself says is left
    found = []
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and kind.elem_type:
            dims = [_dim(d) for d in kind.shape.dim] if kind.HasField("shape") else None
            found.append((value.name, kind.elem_type, dims))
    return found


def _dim(dim: Any) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
