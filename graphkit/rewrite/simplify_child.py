"""What runs in the onnxsim child."""

from __future__ import annotations

from importlib.metadata import version

from graphkit.errors import OptimizationFailed

# MatMul+Add on more than two dimensions becomes Reshape+Gemm+Reshape: more nodes, and no faster anywhere measured.
_SKIPPED = ["fuse_matmul_add_bias_into_gemm_batched"]


def run(given: str, made: str) -> str:
    """Simplify the model at `given` into `made`; returns onnxsim's version."""
    import onnx
    import onnxsim

    model = onnx.load(given)
    kept = [(p.key, p.value) for p in model.metadata_props]
    try:
        simplified, _ = onnxsim.simplify(model, check_n=0, skipped_optimizers=_SKIPPED)
    except Exception as error:  # onnxsim raises RuntimeError, ValueError and what onnx raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise OptimizationFailed(
            f"onnxsim could not process the model: {lines[0][:300]}", remedy="--no-optimize"
        ) from error
    del simplified.metadata_props[:]
    for key, value in kept:
        simplified.metadata_props.add(key=key, value=value)
    onnx.save(simplified, made)
    return version("onnxsim")
