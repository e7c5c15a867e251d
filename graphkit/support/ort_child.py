"""The child's side of ONNX Runtime: which operators it has."""

from __future__ import annotations

from typing import Any

_STANDARD = ("", "ai.onnx")


def unknown(operators: list[tuple[str, str, int]]) -> list[bool]:
    """For each operator (domain, name, operator set), whether ONNX Runtime has neither a kernel nor a definition."""
    import onnxruntime.capi.onnxruntime_pybind11_state as ort

    kernels: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for kernel in ort.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            kernels.setdefault((_domain(kernel.domain), kernel.op_name), []).append(tuple(kernel.version_range))
    schemas: dict[tuple[str, str], list[int]] = {}
    for schema in ort.get_all_operator_schema():
        schemas.setdefault((_domain(schema.domain), schema.name), []).append(schema.since_version)
    return [_unknown(_domain(domain), name, opset, kernels, schemas) for domain, name, opset in operators]


def _unknown(domain: str, name: str, opset: int, kernels: Any, schemas: Any) -> bool:
    since = max((v for v in schemas.get((domain, name), ()) if v <= opset), default=None)
    if since is None:
        return True
    if any(low <= since <= high for low, high in kernels.get((domain, name), ())):
        return False
    return not _defined(domain, name, opset)


def _defined(domain: str, name: str, opset: int) -> bool:
    """Whether ONNX defines it in terms of other operators: ONNX Runtime puts those in its place."""
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(name, opset, domain)
    except onnx.defs.SchemaError:
        return domain not in _STANDARD  # a contrib operator with a schema and without a kernel has a body
    return bool(schema.has_function or schema.has_context_dependent_function)


def _domain(domain: str) -> str:
    return "" if domain in _STANDARD else domain
