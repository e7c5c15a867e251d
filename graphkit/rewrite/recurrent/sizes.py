"""Sizes of dimensions as far as the graph proves them: two equal keys are the same number on every run.

A key is an integer, or the root that a size was traced to: a dimension of a value that nothing here looks through.
Stopping early is always sound: it can only make two equal sizes look different.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from graphkit.rewrite.recurrent import constants

if TYPE_CHECKING:
    import onnx_ir as ir

Key: TypeAlias = int | tuple[int, int] | frozenset["Key"]
"""A number; `(id of a value, axis)`; or the sizes that broadcast together to make this one."""

_T = TypeVar("_T")

_BOOL = 9  # TensorProto.BOOL
_TO_THE_END = 2**31 - 1
_DEPTH = 100  # nodes looked through: well inside Python's own recursion limit

# fmt: off
_SAME = frozenset({
    "Identity", "Cast", "Not", "Neg", "Abs", "Exp", "Sqrt", "Erf", "Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu",
    "Selu", "Gelu", "Softplus", "Softsign", "HardSigmoid", "Clip", "Softmax", "Dropout", "LayerNormalization",
    "BatchNormalization", "ReverseSequence", "CumSum", "ScatterElements", "ScatterND",
})
_BROADCAST = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor",
})
# fmt: on
_REDUCING = frozenset({"ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd"})
_RANK_KEPT = frozenset({"Transpose", "Gemm", "Split", "Concat", "Slice", "GatherElements", "Pad", "Tile"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


class Sizes:
    """Sizes in one graph at one moment; make a new one after changing the graph."""

    def __init__(self) -> None:
        self._dims: dict[Key, Key] = {}
        self._depth = 0

    def dim(self, value: ir.Value, axis: int) -> Key:
        """Size of `value` along `axis`, which is not negative."""
        at: Key = (id(value), axis)
        if at not in self._dims:
            self._dims[at] = at  # what a cycle, or a chain that is too long, ends in
            self._dims[at] = self._deeper(lambda: self._traced(value, axis), at)
        return self._dims[at]

    def rank(self, value: ir.Value) -> int | None:
        """Number of dimensions, or None."""
        if value.shape is not None:
            return value.shape.rank()
        known, node = constants.array(value), value.producer()
        if known is not None:
            return int(known.ndim)
        if node is None or node.domain:
            return None
        return self._deeper(lambda: self._made_rank(node, value.index() or 0), None)

    def scalar(self, value: ir.Value) -> Key:
        """Key of a tensor that holds one number, an integer or a float that is one."""
        root: Key = (id(value), -1)
        known, node = constants.array(value), value.producer()
        if known is not None:
            return int(known.item()) if known.size == 1 and float(known.item()).is_integer() else root
        first = node.inputs[0] if node is not None and node.inputs else None
        if node is None or node.domain or first is None:
            return root
        return self._deeper(lambda: self._made_scalar(node, first, root), root)

    def vector(self, value: ir.Value | None) -> Sequence[Key] | None:
        """Keys of the elements of a one-dimensional integer tensor, or None."""
        if value is None:
            return None
        known, node = constants.integers(value), value.producer()
        if known is not None:
            return known
        if node is None or node.domain or node.inputs[0] is None:
            return None
        return self._deeper(lambda: self._made_vector(node), None)

    def _deeper(self, trace: Callable[[], _T], otherwise: _T) -> _T:
        if self._depth >= _DEPTH:
            return otherwise
        self._depth += 1
        try:
            return trace()
        finally:
            self._depth -= 1

    def _traced(self, value: ir.Value, axis: int) -> Key:
        root: Key = (id(value), axis)
        if value.shape is not None and axis < value.shape.rank() and isinstance(value.shape[axis], int):
            return int(value.shape[axis])  # type: ignore[arg-type]
        known, node = constants.array(value), value.producer()
        if known is not None:
            return int(known.shape[axis]) if axis < known.ndim else root
        if node is None or node.domain or not node.inputs or node.inputs[0] is None:
            return root
        found = self._through(node, node.inputs[0], axis, value.index() or 0)
        return root if found is None else found

    def _through(self, node: ir.Node, first: ir.Value, axis: int, output: int) -> Key | None:
        op = node.op_type
        if op in _SAME:
            return self.dim(first, axis)
        if op in _BROADCAST:
            return self._broadcast([v for v in node.inputs if v is not None], axis)
        if op in _RECURRENT:
            return self._recurrent(node, first, axis, output)
        if op in ("MatMul", "Gemm"):
            return self._product(node, first, axis)
        if op in ("Expand", "ConstantOfShape"):
            return self._filled(node, first, axis)
        if op == "Split":
            return self._split(node, first, axis, output)
        if op == "Reshape":
            return self._reshaped(node, first, axis)
        if op == "GatherElements":
            return None if node.inputs[1] is None else self.dim(node.inputs[1], axis)
        return self._moved(node, first, axis)

    def _broadcast(self, values: Sequence[ir.Value], axis: int) -> Key | None:
        """Along one axis of a broadcasting operator: the size that is not one, or all that differ together."""
        ranks = [self.rank(v) for v in values]
        if any(r is None for r in ranks):
            return None
        most = max(r for r in ranks if r is not None)
        keys: set[Key] = set()
        for value, rank in zip(values, ranks, strict=True):
            own = axis - (most - (rank or 0))
            keys |= alternatives(self.dim(value, own)) if own >= 0 else set()
        keys.discard(1)
        return 1 if not keys else next(iter(keys)) if len(keys) == 1 else frozenset(keys)

    def _recurrent(self, node: ir.Node, first: ir.Value, axis: int, output: int) -> Key | None:
        """Y is [time, directions, batch, hidden]; Y_h and Y_c lack the time (layout 0)."""
        if constants.attribute(node, "layout", 0) != 0:
            return None
        place = axis if output == 0 else axis + 1
        if place in (0, 2):
            return self.dim(first, 0 if place == 0 else 1)
        hidden = constants.attribute(node, "hidden_size")
        directions = 2 if constants.attribute(node, "direction", "forward") == "bidirectional" else 1
        return directions if place == 1 else hidden

    def _product(self, node: ir.Node, first: ir.Value, axis: int) -> Key | None:
        second, rank = node.inputs[1], self.rank(first)
        if second is None or rank is None or rank < 2 or self.rank(second) != 2:
            return None
        if constants.attribute(node, "transA", 0) or constants.attribute(node, "transB", 0):
            return None
        return self.dim(first, axis) if axis < rank - 1 else self.dim(second, 1)

    def _filled(self, node: ir.Node, first: ir.Value, axis: int) -> Key | None:
        shape = self.vector(first if node.op_type == "ConstantOfShape" else node.inputs[1])
        if shape is None or axis >= len(shape):
            return None
        if node.op_type == "ConstantOfShape":
            return shape[axis]
        rank = self.rank(first)
        own = axis - (len(shape) - rank) if rank is not None and rank <= len(shape) else None
        if own is None:
            return None
        had = 1 if own < 0 else self.dim(first, own)
        if had in (1, shape[axis]):
            return shape[axis]
        return had if shape[axis] == 1 else None

    def _moved(self, node: ir.Node, first: ir.Value, axis: int) -> Key | None:
        """Through operators that move or keep whole axes."""
        op, rank = node.op_type, self.rank(first)
        if op == "Transpose":
            perm = constants.attribute(node, "perm")
            return self.dim(first, perm[axis]) if perm is not None else None
        if rank is None:
            return None
        if op == "Gather":
            return self._gathered(node, first, axis, rank)
        if op in ("Unsqueeze", "Squeeze"):
            return self._squeezed(node, first, axis, rank)
        if op == "Slice":
            return self._sliced(node, first, axis, rank)
        if op in _REDUCING:
            return self._reduced(node, first, axis, rank)
        if op == "Tile":
            times = constants.integers(node.inputs[1])
            return self.dim(first, axis) if times is not None and times[axis] == 1 else None
        if op == "Concat":
            return self.dim(first, axis) if axis != constants.attribute(node, "axis", 0) % rank else None
        return None

    def _split(self, node: ir.Node, first: ir.Value, axis: int, output: int) -> Key | None:
        rank, whole = self.rank(first), self.dim(first, axis)
        if rank is None or axis != constants.attribute(node, "axis", 0) % rank:
            return whole if rank is not None else None
        count = len(node.outputs)
        if len(node.inputs) > 1 or "split" in node.attributes or not isinstance(whole, int) or whole % count:
            return None
        return whole // count

    def _sliced(self, node: ir.Node, first: ir.Value, axis: int, rank: int) -> Key | None:
        cut, size = constants.bounds(node), self.dim(first, axis)
        for along, start, end, step in cut or ():
            if along % rank != axis or (start == 0 and end >= _TO_THE_END and step == 1):
                continue
            if not isinstance(size, int):
                return None
            size = len(range(*slice(start, end, step).indices(size)))
        return size if cut is not None else None

    def _reduced(self, node: ir.Node, first: ir.Value, axis: int, rank: int) -> Key | None:
        gone = _reduced_axes(node, rank)
        if gone is None:
            return None
        if constants.attribute(node, "keepdims", 1):
            return 1 if axis in gone else self.dim(first, axis)
        kept = [a for a in range(rank) if a not in gone]
        return self.dim(first, kept[axis]) if axis < len(kept) else None

    def _reshaped(self, node: ir.Node, first: ir.Value, axis: int) -> Key | None:
        shape = self.vector(node.inputs[1]) if not constants.attribute(node, "allowzero", 0) else None
        wanted = shape[axis] if shape is not None and axis < len(shape) else None
        if wanted == 0:
            return self.dim(first, axis)
        fixed = isinstance(wanted, int) and wanted > 0
        # Any other number that is only known at run time could be -1.
        return wanted if fixed or (isinstance(wanted, tuple) and wanted[1] >= 0) else None

    def _gathered(self, node: ir.Node, first: ir.Value, axis: int, rank: int) -> Key | None:
        index, along = node.inputs[1], constants.attribute(node, "axis", 0) % rank
        inner = self.rank(index) if index is not None else None
        if index is None or inner is None:
            return None
        if axis < along:
            return self.dim(first, axis)
        return self.dim(index, axis - along) if axis < along + inner else self.dim(first, axis - inner + 1)

    def _squeezed(self, node: ir.Node, first: ir.Value, axis: int, rank: int) -> Key | None:
        given = constants.axes(node)
        if given is None:
            return None
        full = rank + len(given) if node.op_type == "Unsqueeze" else rank
        gone = sorted(a % full for a in given)
        if node.op_type == "Unsqueeze":
            return 1 if axis in gone else self.dim(first, axis - sum(a < axis for a in gone))
        kept = [a for a in range(rank) if a not in gone]
        return self.dim(first, kept[axis]) if axis < len(kept) else None

    def _made_rank(self, node: ir.Node, output: int) -> int | None:
        op, first = node.op_type, node.inputs[0] if node.inputs else None
        if first is None:
            return None
        if op in _RANK_KEPT or op in _SAME:
            return self.rank(first)
        if op == "MatMul":
            second = node.inputs[1]
            return self.rank(first) if second is not None and self.rank(second) == 2 else None
        if op in _RECURRENT:
            return 4 if output == 0 else 3
        if op in ("Expand", "ConstantOfShape"):
            shape = self.vector(first if op == "ConstantOfShape" else node.inputs[1])
            return len(shape) if shape is not None else None
        if op in _REDUCING:
            return self._reduced_rank(node, first)
        if op == "Reshape":
            wanted = self.vector(node.inputs[1])
            return len(wanted) if wanted is not None else None
        ranks = [self.rank(v) for v in node.inputs if v is not None]
        if op in _BROADCAST:
            return None if None in ranks else max(r for r in ranks if r is not None)
        if op == "Gather" and ranks[0] is not None and ranks[1] is not None:
            return ranks[0] + ranks[1] - 1
        given = constants.axes(node) if op in ("Unsqueeze", "Squeeze") else None
        if given is None or ranks[0] is None:
            return None
        return ranks[0] + (len(given) if op == "Unsqueeze" else -len(given))

    def _reduced_rank(self, node: ir.Node, first: ir.Value) -> int | None:
        rank = self.rank(first)
        if rank is None or constants.attribute(node, "keepdims", 1):
            return rank
        gone = _reduced_axes(node, rank)
        return None if gone is None else rank - len(gone)

    def _made_scalar(self, node: ir.Node, first: ir.Value, root: Key) -> Key:
        op = node.op_type
        if op == "Identity" or (op == "Cast" and constants.attribute(node, "to") != _BOOL):
            return self.scalar(first)
        if op in ("Squeeze", "Reshape", "Gather"):
            held = self.vector(first)
            index = constants.integers(node.inputs[1]) if op == "Gather" else [0]
            if held is None or index is None or len(index) != 1 or (op != "Gather" and len(held) != 1):
                return root
            return held[index[0]] if -len(held) <= index[0] < len(held) else root
        return root

    def _made_vector(self, node: ir.Node) -> Sequence[Key] | None:
        op, first = node.op_type, node.inputs[0]
        if first is None:
            return None
        if op == "Shape":
            rank = self.rank(first)
            keys = [self.dim(first, a) for a in range(rank)] if rank is not None else None
            start, end = constants.attribute(node, "start", 0), constants.attribute(node, "end")
            return keys[start:end] if keys is not None else None
        if op in ("Cast", "Identity"):
            return self.vector(first)
        if op == "Concat":
            parts = [self.vector(v) for v in node.inputs]
            return None if None in parts else [k for part in parts if part is not None for k in part]
        if op == "Unsqueeze":
            return [self.scalar(first)] if self.rank(first) == 0 else None
        return self._part_of_vector(node, self.vector(first))

    def _part_of_vector(self, node: ir.Node, held: Sequence[Key] | None) -> Sequence[Key] | None:
        if held is None:
            return None
        if node.op_type == "Slice":
            cut = constants.bounds(node)
            return held[cut[0][1] : cut[0][2] : cut[0][3]] if cut is not None and len(cut) == 1 else None
        if node.op_type == "Gather":
            index = constants.integers(node.inputs[1])
            inside = index is not None and all(-len(held) <= i < len(held) for i in index)
            return [held[i] for i in index] if index is not None and inside else None
        return None


def alternatives(key: Key) -> set[Key]:
    """The sizes that broadcast together to `key`."""
    return set(key) if isinstance(key, frozenset) else {key}


def _reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    present = "axes" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None)
    given = constants.axes(node) if present else []
    if given is None:
        return None
    everything = not given and not constants.attribute(node, "noop_with_empty_axes", 0)
    return list(range(rank)) if everything else [a % rank for a in given]
