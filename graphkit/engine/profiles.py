"""Symbolic dimensions -> the sizes an engine is built for, proven by shape inference before the build."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic, isolate
from graphkit.errors import BadDimRange, GraphkitError, ShapeMissing, TargetUnsupported, UnknownName
from graphkit.model import Model, provenance
from graphkit.shapes import Dim, DimRange, Signature, TensorSpec, evaluate, free_symbols

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Sizes = tuple[int, ...]

POINTS = ("min", "opt", "max")

LARGEST = 2**31 - 1
"""Optimization profiles hold 32-bit sizes; TensorRT-RTX 1.7.1 takes larger ones modulo 2^32."""

PROOF_TIMEOUT = 120.0
"""Seconds. Inference takes milliseconds; a file of 2 kB with nested functions makes it take for ever."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes that an engine accepts and the ones it is tuned for.

    Attributes:
        shapes: For each input, in order, its smallest, its usual and its largest shape.
    """

    shapes: dict[str, tuple[Sizes, Sizes, Sizes]]

    def to_json(self) -> dict[str, dict[str, list[int]]]:
        """`{"x": {"min": [1, 3], "opt": [4, 3], "max": [8, 3]}}`."""
        return {
            name: {point: list(sizes) for point, sizes in zip(POINTS, triple, strict=True)}
            for name, triple in self.shapes.items()
        }

    def accepts(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether inputs of these shapes lie between min and max; an input of which nothing is known may have any."""
        return all(
            len(sizes) == len(low) and all(a <= n <= b for a, n, b in zip(low, sizes, high, strict=True))
            for name, sizes in shapes.items()
            for low, _, high in ([self.shapes[name]] if name in self.shapes else [])
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Sequence[int]]]) -> Profile:
        """The inverse of `to_json`."""
        shapes = {name: [tuple(points[point]) for point in POINTS] for name, points in data.items()}
        return cls({name: (low, opt, high) for name, (low, opt, high) in shapes.items()})


def make_profile(signature: Signature, dims: Iterable[DimRange]) -> Profile:
    """The profile of a model: every dimension of every input at its min, opt and max.

    Raises:
        BadDimRange: a symbol of an input has no range, or an expression is not 1 <= min <= opt <= max.
        UnknownName: a range is given for a symbol that no input has.
        ShapeMissing: an input has no rank, or a dimension that is neither a size nor a name.
    """
    ranges = {d.symbol: d for d in dims}
    for symbol in ranges:
        if symbol not in signature.symbols:
            raise UnknownName(
                f"no input has a dimension `{symbol}`",
                remedy=f"the symbolic dimensions are: {', '.join(signature.symbols) or 'none, every size is fixed'}",
            )
    _refuse_missing(signature, ranges)
    points = _points(ranges)
    return Profile({spec.name: _triple(spec, points) for spec in signature.inputs})


def _refuse_missing(signature: Signature, ranges: Mapping[str, DimRange]) -> None:
    missing: dict[str, str] = {}
    for spec in signature.inputs:
        if spec.shape is None or any(_unknown(dim) for dim in spec.shape):
            what = "has no shape" if spec.shape is None else "has a dimension with neither a size nor a name"
            raise ShapeMissing(
                f"input `{spec.name}` {what}", where=str(spec), remedy=f"--shape {spec.name}=batch,3,..."
            )
        for dim in spec.shape:
            for symbol in free_symbols(dim) if isinstance(dim, str) else ():
                if symbol not in ranges:
                    missing.setdefault(symbol, str(spec))
    if missing:
        first, where = next(iter(missing.items()))
        raise BadDimRange(
            f"an engine needs a range for dimension `{first}`, which has none",
            where=f"input {where}",
            details=tuple(f"also `{symbol}` of input {spec}" for symbol, spec in list(missing.items())[1:]),
            remedy=" ".join(f"--dim {symbol}=1:4:8" for symbol in missing),
        )


def _unknown(dim: Dim) -> bool:
    """Neither a size nor a usable name; other converters write -1 or `?` for that."""
    if isinstance(dim, str):
        return not all(symbol.replace(".", "_").isidentifier() for symbol in free_symbols(dim))
    return dim is None or dim < 0


def _points(ranges: Mapping[str, DimRange]) -> tuple[dict[str, int], ...]:
    return (
        {s: r.min for s, r in ranges.items()},
        {s: r.opt for s, r in ranges.items()},
        {s: r.max for s, r in ranges.items()},
    )


def _triple(spec: TensorSpec, points: tuple[dict[str, int], ...]) -> tuple[Sizes, Sizes, Sizes]:
    columns = [[evaluate(dim, sizes) for sizes in points] for dim in spec.shape or ()]
    for dim, column in zip(spec.shape or (), columns, strict=True):
        low, opt, high = column
        if low is None or opt is None or high is None:
            raise BadDimRange(f"the dimension `{dim}` of input `{spec.name}` cannot be computed", where=str(spec))
        if not 1 <= low <= opt <= high:
            raise BadDimRange(
                f"the dimension `{dim}` of input `{spec.name}` becomes {low}:{opt}:{high} in the declared ranges",
                where=str(spec),
                remedy="every dimension must satisfy 1 <= min <= opt <= max: change the --dim ranges",
            )
        if high > LARGEST:
            raise BadDimRange(
                f"the dimension `{dim}` of input `{spec.name}` becomes {high}, and an engine's sizes end at {LARGEST}",
                where=str(spec),
                remedy="a smaller maximum in --dim",
            )
    low_sizes, opt_sizes, high_sizes = (tuple(int(c[i] or 0) for c in columns) for i in range(3))
    return low_sizes, opt_sizes, high_sizes


# --- proof -------------------------------------------------------------------------------------------------------


def prover() -> isolate.Worker:
    """The child process that runs ONNX shape inference; `start()` it early to overlap its imports."""
    return isolate.worker("ONNX shape inference", preload=("onnx", "graphkit.engine.profiles"))


def prove(model: Model, dims: Iterable[DimRange]) -> Profile:
    """Show by strict ONNX shape inference that the graph is consistent at min, opt and max; returns the profile.

    Weights are not copied: those of more than 1024 elements become inputs of the same type and shape.

    Raises:
        BadDimRange: the graph contradicts itself at some of the three points.
        TargetUnsupported: it does at all of them: no range would help.
        TimedOut: inference did not end.
        BadDimRange, UnknownName, ShapeMissing: as `make_profile`.
    """
    return prove_all(model, (tuple(dims),))[0]


def prove_all(model: Model, sets: Sequence[tuple[DimRange, ...]]) -> tuple[Profile, ...]:
    """`prove` for several profiles at once: each a set of ranges of its own."""
    profiles = tuple(make_profile(model.signature, ranges) for ranges in sets)
    points: dict[str, dict[str, list[int]]] = {}
    symbols: dict[str, dict[str, int]] = {}
    for number, (profile, ranges) in enumerate(zip(profiles, sets, strict=True), 1):
        for index, point in enumerate(POINTS):
            shapes = {name: list(triple[index]) for name, triple in profile.shapes.items()}
            label = point if len(sets) == 1 else f"{point} of profile {number}"
            if shapes not in points.values():
                points[label] = shapes
                symbols[label] = _points({r.symbol: r for r in ranges})[index]
    failures, nodes = infer(model, points)
    if failures:
        asked = tuple(dict.fromkeys(r for ranges in sets for r in ranges))
        raise _disproof(failures, nodes, symbols, asked)
    return profiles


def infer(model: Model, points: Mapping[str, dict[str, list[int]]]) -> tuple[list[dict[str, Any]], dict[str, ir.Node]]:
    """Which of some points fail strict shape inference, and why; and the nodes that the reasons name.

    Args:
        points: Shape of each input, by the name of the point.

    Raises:
        TimedOut: inference did not end.
    """
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        path = Path(folder, "structure.onnx")
        nodes = _write_structure(model, path)
        function = "graphkit.engine.profiles:infer_at"
        failures = prover().call(function, timeout=PROOF_TIMEOUT, model_path=str(path), shapes=dict(points))
    return failures, nodes


def _write_structure(model: Model, path: Path) -> dict[str, ir.Node]:
    """Write the graph without its weights; returns its nodes by the unique names that they were given there."""
    import onnx_ir as ir

    graph = model.ir.clone()
    for value in list(graph.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.size > 1024:
            value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
            value.const_value = None
            graph.graph.initializers.pop(str(value.name))
            if value not in graph.graph.inputs:
                graph.graph.inputs.append(value)
    named: dict[str, ir.Node] = {}
    for index, (node, original) in enumerate(zip(graph.graph.all_nodes(), model.ir.graph.all_nodes(), strict=True)):
        node.name = f"gk{index}"
        if node.op_type == "GroupNormalization" and not node.domain:  # onnx 1.23 infers nothing for it
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)
        named[node.name] = original
    with atomic.replacing(path, durable=False) as temporary:  # a full disk is named
        temporary.write_bytes(ir.to_proto(graph).SerializeToString())
    return named


def _disproof(
    failures: list[dict[str, Any]],
    nodes: Mapping[str, ir.Node],
    symbols: Mapping[str, Mapping[str, int]],
    ranges: tuple[DimRange, ...],
) -> GraphkitError:
    always = len(failures) == len(symbols)
    first = failures[0]
    error = first["errors"][0]
    node = nodes.get(error["node"])
    at = ", ".join(f"{s}={n}" for s, n in symbols[first["point"]].items())
    told = failures[:1] if always else failures
    what = f"node {node_label(node)}: {error['reason']}" if node is not None else error["reason"]
    details = tuple(
        f"at {failure['point']}: {_node_reason(e, nodes)}" for failure in told for e in failure["errors"][:8]
    )
    where = node_source(node)
    if always or not ranges:
        return TargetUnsupported(
            f"the graph contradicts itself: {what}",
            where=where,
            details=details if len(details) > 1 else (),
            remedy="correct the shapes in the model: no engine can be built from it at any size",
        )
    return BadDimRange(
        f"the graph does not hold at {first['point']} ({at}): {what}",
        where=where,
        details=details if len(details) > 1 else (),
        remedy=f"change {' '.join(f'--dim {r}' for r in ranges)}, or make the model independent of that size",
    )


def _node_reason(error: dict[str, Any], nodes: Mapping[str, ir.Node]) -> str:
    node = nodes.get(error["node"])
    return f"node {node_label(node)}: {error['reason']}" if node is not None else str(error["reason"])


def node_label(node: ir.Node) -> str:
    """`conv_1 (Conv)`; a node without a name is called after what it makes."""
    outputs = ", ".join(str(v.name) for v in node.outputs)
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{node.name} ({operator})" if node.name else f"{operator} -> {outputs}"


def node_source(node: ir.Node | None) -> str | None:
    """Where in the user's code a node comes from, in one line; None where nobody recorded it."""
    lines = provenance(node) if node is not None else ()
    return "; ".join(map(str, lines)) or None


# --- the child's side --------------------------------------------------------------------------------------------

# `(op_type:Add, node name: gk3): why` and `Cannot infer type and shape for node name gk3. why`
_NODE_IN_ERROR = re.compile(r"\bnode name:? (gk\d+)\)?[:.] ")


def infer_at(model_path: str, shapes: dict[str, dict[str, list[int]]]) -> list[dict[str, Any]]:
    """In the child: infer shapes with the inputs at each point; returns the points that fail, and why."""
    import onnx

    model = onnx.load(model_path, load_external_data=False)
    del model.graph.value_info[:]  # what an exporter noted for one size is not evidence for another
    failures = _failing(model, shapes)
    if failures and _let_go(model, shapes):
        return _failing(model, shapes)
    return failures


def _failing(model: onnx.ModelProto, shapes: Mapping[str, dict[str, list[int]]]) -> list[dict[str, Any]]:
    failures = []
    for point, sizes in shapes.items():
        _set_sizes(model, sizes)
        errors = _infer(model)
        if errors:
            failures.append({"point": point, "errors": errors})
    return failures


def _set_sizes(model: onnx.ModelProto, sizes: Mapping[str, list[int]]) -> None:
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            dim.dim_value = size


def _let_go(model: onnx.ModelProto, shapes: Mapping[str, dict[str, list[int]]]) -> bool:
    """Take out of the outputs' shapes what an exporter noted for one size: numbers where the operators make several.

    A number that no point agrees with stays, and is refused, where the operators make one other number.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    made: dict[tuple[int, int], set[int]] = {}
    for sizes in shapes.values():
        _set_sizes(bare, sizes)
        try:
            inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
            return False
        for index, value in enumerate(inferred.graph.output):
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                made.setdefault((index, axis), set()).add(dim.dim_value if dim.HasField("dim_value") else -1)
    varying = [
        dim
        for index, value in enumerate(model.graph.output)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if dim.HasField("dim_value") and len(made.get((index, axis), ())) > 1
    ]
    for dim in varying:
        dim.ClearField("dim_value")
    return bool(varying)


def _infer(model: onnx.ModelProto) -> list[dict[str, str | None]]:
    import onnx

    # RuntimeError: what onnx's C++ raises for anything it has no type for, "No Op registered for X" among them.
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines()
        return [found for line in lines if (found := _innermost(line))] or [{"node": None, "reason": _plain(lines[0])}]
    producers = {output: node.name for node in inferred.graph.node for output in node.output}
    return _bad_reshapes(inferred.graph) + [
        {"node": producers.get(value.name), "reason": f"`{value.name}` gets the negative size {dim.dim_value}"}
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_value < 0
    ]


def _bad_reshapes(graph: onnx.GraphProto) -> list[dict[str, str | None]]:
    """Reshapes that would lose or invent elements: ONNX's inference checks a target only if it holds a -1."""
    known = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = [dim.dim_value for dim in dims]
    found: list[dict[str, str | None]] = []
    for node in graph.node:
        if node.op_type != "Reshape" or node.domain or not (node.input and node.output):
            continue
        before, after = known.get(node.input[0]), known.get(node.output[0])
        if before is not None and after is not None and math.prod(before) != math.prod(after) and min([*after, 0]) >= 0:
            found.append({"node": node.name, "reason": f"cannot turn the shape {before} into {after}"})
    return found


def _innermost(line: str) -> dict[str, str | None] | None:
    """The last node that a line names: an `If` repeats the error of the node in its branch after its own name."""
    named = list(_NODE_IN_ERROR.finditer(line))
    return {"node": named[-1][1], "reason": _plain(line[named[-1].end() :])} if named else None


def _plain(text: str) -> str:
    return re.sub(r"\[(Shape|Type)InferenceError\] ", "", text).strip()
