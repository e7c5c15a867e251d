"""Makes a model of a part of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphkit.model import Model
from graphkit.shapes import Dim, free_symbols

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.shrink.graph import Graph, Region

_MOST_CONSTANT = 64
"""Elements of an integer tensor up to which it becomes a constant, where it is the same on all inputs: a shape that
is an input is what no engine takes."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type, and dimensions as far as they are known."""

    dtype: ir.DataType
    dims: tuple[Dim, ...] | None = None


@dataclass(frozen=True, slots=True)
class Feed:
    """What takes the place of a tensor whose node is left out: an input of a type, or a constant."""

    type: TensorType
    constant: np.ndarray[Any, Any] | None = None


def feed_for(known: TensorType | None, values: Sequence[Any], symbols: Sequence[str], name: str) -> Feed | None:
    """What to put in place of a tensor; None where nothing is known about it.

    Args:
        known: Its type by shape inference. A dimension stays symbolic if its symbols are `symbols`, those of the whole
            model's inputs; any other has the recorded size, or a symbol of its own where sizes differ.
        values: What it was on each of the inputs; () where that is not known.
    """
    import numpy as np
    import onnx_ir as ir

    if not values:
        return None if known is None else Feed(replace(known, dims=_open(known.dims, symbols, name)))
    first = values[0]
    same = all(np.array_equal(first, v) for v in values[1:])
    dtype = ir.DataType.STRING if first.dtype.kind in "OUS" else ir.DataType.from_numpy(first.dtype)
    if same and first.dtype.kind in "iub" and first.size <= _MOST_CONSTANT:
        return Feed(TensorType(dtype, first.shape), first)
    if any(v.ndim != first.ndim for v in values):
        return None
    inferred = known.dims if known is not None and known.dims is not None and len(known.dims) == first.ndim else None
    dims = tuple(
        _dim(inferred[axis] if inferred else None, [int(v.shape[axis]) for v in values], symbols, f"{name}_dim{axis}")
        for axis in range(first.ndim)
    )
    return Feed(TensorType(dtype, dims))


def cut(
    model: Model, graph: Graph, region: Region, feeds: Mapping[str, Feed], types: Mapping[str, TensorType]
) -> Model:
    """A model of the nodes of `region` alone, with the weights that they read and nothing else.

    Args:
        graph: Of `model`.
        feeds: For each tensor that the region reads from nodes outside.
        types: Of its outputs.
    """
    import onnx_ir as ir

    whole = model.ir.clone()
    nodes = list(whole.graph)
    for name, feed in feeds.items():
        old = next(v for v in nodes[graph.makers[name]].outputs if v.name == name)
        new = _value(name, feed)
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name = None  # the name is the new value's now
        if feed.constant is not None:
            whole.graph.register_initializer(new)
        else:
            whole.graph.inputs.append(new)
    _set_outputs(whole.graph, [nodes[i] for i in sorted(region.nodes)], region.outputs, types)
    whole.graph.remove([n for i, n in enumerate(nodes) if i not in region.nodes])
    read = {*(name for i in region.nodes for name in graph.reads[i])}
    kept = [v for v in whole.graph.inputs if v.name in read]
    whole.graph.inputs.clear()
    whole.graph.inputs.extend(kept)
    for name in [n for n in whole.graph.initializers if n not in read]:
        del whole.graph.initializers[name]
    _drop_functions(whole)
    symbols = {
        s for v in kept for d in v.shape or () if isinstance(d, ir.SymbolicDim) for s in free_symbols(d.value or "")
    }
    return replace(model, ir=whole, dims=tuple(d for d in model.dims if d.symbol in symbols))


def _open(dims: tuple[Dim, ...] | None, symbols: Sequence[str], name: str) -> tuple[Dim, ...] | None:
    if dims is None:
        return None
    return tuple(
        d if isinstance(d, int) or _is_known(d, symbols) else f"{_word(name)}_dim{a}" for a, d in enumerate(dims)
    )


def _dim(inferred: Dim, sizes: Sequence[int], symbols: Sequence[str], otherwise: str) -> Dim:
    if _is_known(inferred, symbols):
        return inferred
    return sizes[0] if len(set(sizes)) == 1 else _word(otherwise)


def _is_known(dim: Dim, symbols: Sequence[str]) -> bool:
    return isinstance(dim, str) and bool(free_symbols(dim)) and set(free_symbols(dim)) <= set(symbols)


def _word(name: str) -> str:
    word = "".join(c if c.isalnum() else "_" for c in name)
    return word if word[:1].isalpha() else f"t{word}"


def _value(name: str, feed: Feed) -> ir.Value:
    import onnx_ir as ir

    shape = None if feed.type.dims is None else ir.Shape(feed.type.dims)
    constant = None if feed.constant is None else ir.tensor(feed.constant, name=name)
    return ir.Value(name=name, type=ir.TensorType(feed.type.dtype), shape=shape, const_value=constant)


def _set_outputs(
    graph: ir.Graph, kept: Sequence[ir.Node], outputs: Sequence[str], types: Mapping[str, TensorType]
) -> None:
    import onnx_ir as ir

    made = {v.name: v for n in kept for v in n.outputs if v.name}
    graph.outputs.clear()
    for name in outputs:
        value, known = made[name], types.get(name)
        if known is not None:
            value.type = ir.TensorType(known.dtype)
            value.shape = None if known.dims is None else ir.Shape(known.dims)
        graph.outputs.append(value)


def _drop_functions(model: ir.Model) -> None:
    used: set[Any] = set()
    pending = [n.op_identifier() for n in model.graph.all_nodes()]
    while pending:
        key = pending.pop()
        if key in model.functions and key not in used:
            used.add(key)
            pending.extend(n.op_identifier() for n in model.functions[key].all_nodes())
    for key in [k for k in model.functions if k not in used]:
        del model.functions[key]
