"""What could not be translated: every operator at once, with its layer, its number, and what to do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphkit.capture.tf_paths import Layers
from graphkit.capture.tf_run import Unconverted
from graphkit.errors import UnsupportedOperator
from graphkit.model import SourceLine

if TYPE_CHECKING:
    import onnx

_REMEDIES = (
    (r"^(Eager)?PyFunc(Stateless)?$", "Python code is no part of a graph: write it in TensorFlow's operators"),
    (r"^(Stateful)?PartitionedCall$", "a function stays a call here (jit_compile, or not inlined): call its Python "
     "function instead"),
    (r"(Svd|Qr|Eig|Cholesky|Lu|MatrixInverse|MatrixSolve|MatrixTriangularSolve|MatrixDeterminant|MatrixExponential)",
     "ONNX has no such decomposition: compute it before the model, or leave it to the caller"),
    (r"^(Var|Variable|Assign|ReadVariable|ResourceGather|ResourceApply|ResourceScatter)", "a variable is left in the "
     "graph: freeze it, or make the state an input and an output"),
    (r"^(HashTable|MutableHashTable|LookupTable|InitializeTable)", "look the keys up before the model"),
    (r"^(Iterator|.*Dataset|ReadFile|WriteFile|Decode|Parse)", "read and decode before the model, which takes tensors"),
    (r"^Stateless.*Random|^Random|^(Stateful|Stateless)", "draw random numbers before the model and pass them in"),
    (r"Grad$|Backprop", "no translation of this gradient; write it in the forward operators"),
    (r"^(Switch|Merge|Enter|Exit|NextIteration|LoopCond|_SwitchN)$", "control flow of TensorFlow 1: write it with "
     "tf.cond, tf.switch_case or tf.while_loop"),
    (r"^(Sparse|Ragged)", "give the operator dense tensors"),
    (r"^(IFFT|FFT|RFFT|IRFFT)", "only the transforms of 1-D and 2-D signals are translated, and of complex "
     "tensors only their parts, absolute values, conjugates, products and transforms"),
)  # fmt: skip
_OTHERWISE = "write it in other operators, or convert the part of the model without it"


def refuse(
    unconverted: Iterable[Unconverted],
    operations: Mapping[str, str],
    layers: Layers,
    lines: Mapping[str, SourceLine],
    opset: int,
) -> None:
    """Refuse a graph of which anything was left untranslated.

    Args:
        unconverted: The nodes that tf2onnx left.
        operations: The op of each operation of the graph, by name: ops are named as they are there.
        layers: Which layer an operation belongs to.
        lines: The user's line for operations, where it is known.
        opset: The opset that was asked for.

    Raises:
        UnsupportedOperator: there is at least one; it lists every op.
    """
    places: dict[str, dict[str, str]] = defaultdict(dict)
    reasons: dict[str, str] = {}
    own: dict[str, SourceLine] = {}
    for left in unconverted:
        name = layers.operation(left.name) or left.name
        op = operations.get(name) or left.op or "an operator"
        places[op][name] = layers.path(name)
        line = lines.get(left.name) or lines.get(name)
        if line is not None:
            own[name] = replace(line, module="")
        if left.reason:
            reasons.setdefault(op, left.reason)
    if places:
        raise _error(places, reasons, own, opset)


def unknown_ops(proto: onnx.ModelProto) -> list[Unconverted]:
    """Nodes, also inside If and Loop, whose operator ONNX does not have at the model's opset."""
    import onnx

    versions = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in proto.opset_import}
    functions = {(f.domain, f.name) for f in proto.functions}
    found: list[Unconverted] = []
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    known: dict[tuple[str, str], bool] = {}
    while pending:
        node = pending.pop()
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
            for graph in attribute.graphs:
                pending.extend(graph.node)
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = (domain, node.op_type)
        if key not in known:
            known[key] = key in functions or _has(onnx, *key, versions.get(domain, 1))
        if not known[key]:
            found.append(Unconverted(node.name or (node.output[0] if node.output else ""), node.op_type))
    return found[::-1]


def _has(onnx: Any, domain: str, op: str, version: int) -> bool:
    try:
        onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _error(
    places: dict[str, dict[str, str]], reasons: dict[str, str], lines: Mapping[str, SourceLine], opset: int
) -> UnsupportedOperator:
    names = sorted(places)
    listed = [
        {
            "op": op,
            "count": len(places[op]),
            "layers": sorted({path for path in places[op].values() if path}),
            "nodes": sorted(places[op]),
            "lines": sorted({str(lines[name]) for name in places[op] if name in lines}),
            "reason": reasons.get(op),
            "remedy": _remedy(op),
        }
        for op in names
    ]
    shown = ", ".join(f"`{op}`" for op in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    plural = "operators have" if len(names) > 1 else "operator has"
    first = listed[0]
    return UnsupportedOperator(
        f"{len(names)} TensorFlow {plural} no ONNX translation at opset {opset}: {shown}",
        where=_place(first),
        details=tuple(_line(entry) for entry in listed),
        remedy=str(first["remedy"]) if len(names) == 1 else "change each of these as its line says",
        data={"operators": listed, "opset": opset},
    )


def _line(entry: dict[str, Any]) -> str:
    times = f", {entry['count']} times" if entry["count"] > 1 else ""
    reason = f" ({entry['reason']})" if entry["reason"] else ""
    return f"{entry['op']}{times}, at {_place(entry)}{reason}: {entry['remedy']}"


def _place(entry: dict[str, Any]) -> str:
    places = entry["lines"] or [f"`{layer}`" for layer in entry["layers"]]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more if places else f"node `{entry['nodes'][0]}`"


def _remedy(op: str) -> str:
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, op)), _OTHERWISE)
