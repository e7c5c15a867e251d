"""Quantised graphs: how far two correct programs may differ.

QuantizeLinear rounds to the nearest step; where a value lies halfway between two, a difference in the last bit of a
sum decides. TFLite's own kernels differ from one another by one step (XNNPACK, plain and reference kernels of an int8
network, TensorFlow 2.21), so one step of an output is no fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.parity.compare import compare_outputs, tolerance_for
from graphkit.parity.judge import Judgement
from graphkit.parity.verdict import OutputComparison

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model

    Tensors = Mapping[str, np.ndarray[Any, Any]]

_MOVES = ("Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Concat")
"""Operators whose output holds values of their first input."""


@dataclass(frozen=True, slots=True)
class WithinOneStep:
    """As `ByName`, but an output may differ by one step of its quantisation.

    Attributes:
        steps: The step by output; 1 for an integer one.
    """

    steps: Mapping[str, float]

    def __call__(self, expected: Tensors, found: Tensors) -> Judgement:
        outputs: list[OutputComparison] = []
        for name, values in expected.items():
            step = self.steps.get(name, 0.0)
            mine = {name: found[name]} if name in found else {}

            def tolerance(ours: str, theirs: str, scale: float, step: float = step) -> tuple[float, float]:
                atol, rtol = tolerance_for(ours, theirs, scale)
                return max(atol, step), rtol

            outputs.extend(compare_outputs({name: values}, mine, tolerance))
        outputs.extend(compare_outputs({}, {n: v for n, v in found.items() if n not in expected}))
        told = ", ".join(f"`{name}` by {step:.3g}" for name, step in self.steps.items())
        return Judgement(tuple(outputs), (f"one step of quantisation is no fault: {told}",))


def steps_of(model: Model) -> dict[str, float]:
    """One step of each output that a graph quantises; empty for a graph that does not."""
    found = {}
    for value in model.ir.graph.outputs:
        step = _step(value)
        if step is not None:
            found[value.name or ""] = step
    return found


def is_quantised(model: Model) -> bool:
    """Whether a graph rounds its activations to integers."""
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.ir.graph.all_nodes())


def _step(value: ir.Value) -> float | None:
    node = value.producer()
    while node is not None and node.op_type in _MOVES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    if node.op_type == "QuantizeLinear":
        return 1.0
    scale = node.inputs[1].const_value if node.inputs[1] is not None else None
    # A little more than the step: the product with the zero point's neighbour is itself rounded.
    return float(scale.numpy().max()) * (1 + 1e-6) if scale is not None else None
