"""Operators of a TFLite file that have no translation: all at once, with name, number and place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from graphkit.capture.tf_run import Unconverted
from graphkit.capture.tflite_entry import Entry
from graphkit.capture.tflite_schema import CUSTOM, Operator, Subgraph, TFLiteFile
from graphkit.errors import UnsupportedOperator

_FLEX = "Flex"
"""What the name of an operator of TensorFlow's own begins with."""

_HYBRID = "float activations with int8 weights"
_REMEDIES = {
    _HYBRID: "TFLite rounds the activations at run time (dynamic-range quantisation), which ONNX has no operator for: "
    "convert the original model with float weights, or with full integer quantisation",
    "flex": "this is an operator of TensorFlow's own: write the model without it",
    "custom": "only the program that registers a custom operator knows what it computes: leave it out of the model",
}
_OTHERWISE = "write it in other operators before the conversion to TFLite"


def check(file: TFLiteFile, entry: Entry, *, custom_only: bool = False) -> None:
    """Refuse a file with operators that cannot be translated, before anything runs it.

    Args:
        custom_only: Whether only custom operators count: those that the interpreter does not know, or that do more
            than compute (TensorFlow's own, such as FlexWriteFile).

    Raises:
        UnsupportedOperator: there is at least one; it lists every one.
    """
    known = _translated_by_tf2onnx()
    found: dict[str, list[str]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for graph, operator in _operators(file, entry):
        name = _name(operator)
        kind = "builtin" if operator.code != CUSTOM else ("flex" if name.startswith(_FLEX) else "custom")
        if not custom_only and _is_hybrid(graph, operator):
            name = f"{name}, {_HYBRID}"
            kind = _HYBRID
        elif _is_known(name, known) or (custom_only and kind == "builtin"):
            continue
        found[name].append(_place(graph, operator))
        kinds[name] = kind
    if found:
        raise _error(found, {name: _REMEDIES.get(kinds[name], _OTHERWISE) for name in found})


def has_flex(file: TFLiteFile) -> bool:
    """Whether a file has operators of TensorFlow's own."""
    return any(o.custom.startswith(_FLEX) for graph in file.subgraphs for o in graph.operators)


def refuse(unconverted: Iterable[Unconverted], file: TFLiteFile, entry: Entry, opset: int) -> None:
    """Refuse what tf2onnx left untranslated although it has a handler.

    Raises:
        UnsupportedOperator: there is at least one.
    """
    names = {_place(graph, operator): _name(operator) for graph, operator in _operators(file, entry)}
    found: dict[str, list[str]] = defaultdict(list)
    reasons: dict[str, str] = {}
    for left in unconverted:
        op = names.get(left.name) or left.op.removeprefix("TFL_") or "an operator"
        found[op].append(left.name)
        reasons[op] = f"{left.reason or 'it has no translation'}, at opset {opset}"
    if found:
        raise _error(found, reasons)


def _operators(file: TFLiteFile, entry: Entry) -> Iterator[tuple[Subgraph, Operator]]:
    """Those of the entry's graph and of the bodies that it runs."""
    seen, pending = {entry.subgraph}, [entry.subgraph]
    while pending:
        graph = file.subgraphs[pending.pop()]
        for operator in graph.operators:
            yield graph, operator
            pending.extend(new := [s for s in operator.subgraphs if s not in seen])
            seen.update(new)


def _is_known(name: str, known: set[str]) -> bool:
    return f"TFL_{name}" in known or (name.startswith(_FLEX) and name.removeprefix(_FLEX) in known)


def _is_hybrid(graph: Subgraph, operator: Operator) -> bool:
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    if not tensors or tensors[0].dtype != "float32" or tensors[0].constant:
        return False
    return any(t.constant and t.scales and t.dtype in ("int8", "uint8", "int4") for t in tensors)


def _translated_by_tf2onnx() -> set[str]:
    from tf2onnx import handler, tfonnx  # noqa: F401 - importing tfonnx registers the handlers

    return {*handler.tfl_op.create_tfl_to_tf_mapping(), *handler.tf_op.create_mapping(18, None)}


def _name(operator: Operator) -> str:
    if operator.code == CUSTOM:
        return operator.custom
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    names: dict[int, str] = {n: name for name, n in vars(BuiltinOperator).items() if not name.startswith("_")}
    return names.get(operator.code, f"operator {operator.code}")


def _place(graph: Subgraph, operator: Operator) -> str:
    """The name of what it makes."""
    return next((graph.tensors[i].name for i in operator.outputs if i >= 0), "")


def _error(found: dict[str, list[str]], remedies: dict[str, str]) -> UnsupportedOperator:
    names = sorted(found)
    shown = ", ".join(f"`{n}`" for n in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    plural = "operators have" if len(names) > 1 else "operator has"
    lines = []
    for name in names:
        times = f", {len(found[name])} times" if len(found[name]) > 1 else ""
        place = f", at `{found[name][0]}`" if found[name][0] else ""
        lines.append(f"{name}{times}{place}: {remedies[name]}")
    return UnsupportedOperator(
        f"{len(names)} TFLite {plural} no ONNX translation: {shown}",
        where=f"`{found[names[0]][0]}`" if found[names[0]][0] else None,
        details=tuple(lines),
        remedy=remedies[names[0]] if len(names) == 1 else "change each of these as its line says",
        data={"operators": [{"op": n, "count": len(found[n]), "nodes": sorted(found[n])} for n in names]},
    )
