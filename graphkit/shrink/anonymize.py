"""A model that fails alike and tells nothing: random weights of the same statistics, and neutral names."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphkit.model import Model, Origin
from graphkit.shapes import free_symbols

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Arrays = Mapping[str, np.ndarray[Any, Any]]

_STRUCTURE = 64
"""Elements up to which a vector of integers is taken for a shape, axes or bounds, and kept."""

_EXTREMES = 8  # elements from which the least and the largest value of a tensor are kept: range is what overflows


class Anonymizer:
    """Renames and replaces, in the same way in every model that it is given.

    Floating-point tensors get normal values of the same mean and standard deviation inside the same range, with NaN
    and infinities where they were; integers uniform ones of the same range, so that indices stay valid. Scalars, and
    vectors of at most 64 integers wider than 8 bits (shapes, axes, bounds), are kept. Names of operators, their
    attributes and of model-local functions are kept: they are what fails.

    Args:
        seed: Of the random values.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._names: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._renamed: set[int] = set()
        self._symbols: dict[str, str] = {}

    def model(self, model: Model) -> Model:
        """The model under neutral names and with random weights."""
        graph = model.ir.clone()
        self._renamed.clear()
        for value in graph.graph.inputs:
            if value.name not in graph.graph.initializers:
                self._rename_as(value.name or "", "input")
        for value in graph.graph.outputs:
            self._rename_as(value.name or "", "output")
        for each in (graph.graph, *graph.graph.subgraphs()):
            self._graph(each)
        for function in graph.functions.values():
            self._nodes(function)
            function.metadata_props.clear()
            function.doc_string = None
        _forget(graph)
        ends = {id(v) for v in (*graph.graph.inputs, *graph.graph.outputs)}
        for node in graph.graph.all_nodes():
            for value in node.outputs:
                if id(value) not in ends:
                    value.shape = None
        dims = tuple(replace(d, symbol=self._symbol(d.symbol)) for d in model.dims)
        return Model(graph, Origin("anonymised model"), dims)

    def sample(self, sample: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Inputs of a model that was renamed, with random values."""
        return {self._names[name]: self._values(value, self._names[name]) for name, value in sample.items()}

    def _graph(self, graph: ir.Graph) -> None:
        graph.name, graph.doc_string = "graph", None
        graph.metadata_props.clear()
        for value in list(graph.initializers.values()):
            self._value(value)
            if value.const_value is not None:
                value.const_value = self._tensor(value.const_value, value.name or "")
        for value in graph.inputs:
            self._value(value)
        self._nodes(graph)

    def _nodes(self, nodes: Any) -> None:
        import onnx_ir as ir

        for node in nodes:
            node.name, node.doc_string = self._rename_as(f"node {node.name or id(node)}", "node"), None
            node.metadata_props.clear()
            for value in node.outputs:
                self._value(value)
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    key = f"{node.name}.{name}"
                    node.attributes[name] = ir.AttrTensor(name, self._tensor(attribute.value, key))

    def _value(self, value: ir.Value) -> None:
        if not value.name or id(value) in self._renamed:
            return
        self._renamed.add(id(value))
        value.name = self._rename_as(value.name, "tensor")
        value.doc_string = None
        value.metadata_props.clear()
        if value.shape is not None:
            value.shape = type(value.shape)(self._dim(d) for d in value.shape)

    def _dim(self, dim: Any) -> Any:
        text = dim if isinstance(dim, int) else dim.value
        if not isinstance(text, str):
            return text
        for symbol in sorted(free_symbols(text), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(symbol)}(?![\w.])", self._symbol(symbol), text)
        return text

    def _symbol(self, symbol: str) -> str:
        return self._symbols.setdefault(symbol, f"d{len(self._symbols)}")

    def _rename_as(self, name: str, kind: str) -> str:
        if name not in self._names:
            self._names[name] = f"{kind}_{self._counts[kind]}"
            self._counts[kind] += 1
        return self._names[name]

    def _tensor(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        import onnx_ir as ir

        if tensor.dtype == ir.DataType.STRING:
            return ir.tensor(self._strings(tensor.numpy()), dtype=ir.DataType.STRING, name=name)
        return ir.Tensor(self._values(tensor.numpy(), name), dtype=tensor.dtype, name=name)

    def _values(self, values: Any, name: str) -> Any:
        import numpy as np

        from graphkit.parity.compare import is_float

        if values.dtype.kind in "OUS":
            return self._strings(values)
        narrow = values.dtype.itemsize == 1 and values.dtype.kind != "b"
        if values.size <= 1 or (
            not is_float(values.dtype) and values.ndim < 2 and values.size <= _STRUCTURE and not narrow
        ):
            return values
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        if values.dtype.kind == "b":
            return rng.random(values.shape) < values.mean()
        if values.dtype.kind == "c":
            real, imaginary = (self._values(part, f"{name}.{i}") for i, part in enumerate((values.real, values.imag)))
            return (real + 1j * imaginary).astype(values.dtype)
        if is_float(values.dtype):
            return _floats(values, rng)
        wide = values.astype(np.int64)
        return rng.integers(wide.min(), wide.max(), values.shape, endpoint=True).astype(values.dtype)

    def _strings(self, values: Any) -> Any:
        import numpy as np

        neutral = {text: f"string {i}" for i, text in enumerate(dict.fromkeys(values.reshape(-1).tolist()))}
        return np.array([neutral[text] for text in values.reshape(-1).tolist()], dtype=object).reshape(values.shape)


def _floats(values: Any, rng: Any) -> Any:
    """Normal values of the same mean and standard deviation, inside the same range."""
    import numpy as np

    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.any():
        return values
    known = wide[finite]
    drawn = rng.standard_normal(known.size)
    spread = drawn.std()
    drawn = (drawn - drawn.mean()) / spread if spread else drawn
    made = np.clip(known.mean() + known.std() * drawn, known.min(), known.max())
    if known.size >= _EXTREMES:
        made[made.argmin()], made[made.argmax()] = known.min(), known.max()
    wide[finite] = made
    return wide.astype(values.dtype)


def _forget(model: ir.Model) -> None:
    model.metadata_props.clear()
    model.producer_name = model.producer_version = model.domain = model.doc_string = None
    model.model_version = None
