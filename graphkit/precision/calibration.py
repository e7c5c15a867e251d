"""How large the activations of a model get on calibration data: one float32 run per sample, in a child process.

The three methods are those of onnxruntime.quantization and TensorRT: `minmax` (the largest |x|), `percentile`
(99.999 % of the values) and `entropy` (Migacz, GTC 2017). Samples pass one at a time; `minmax` keeps a number per
tensor, and some rows of those whose channels can be moved; the others a histogram, and one sample's tensors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphkit.errors import BadOption, BadSample
from graphkit.parity.runners import ort_worker
from graphkit.precision.quant_channels import Half, halves

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model

Method = Literal["minmax", "entropy", "percentile"]

METHODS: tuple[str, ...] = get_args(Method)
PERCENT = 99.999
_CHILD = "graphkit.precision.calibration_child"
_PREFIX = "graphkit.calibration."


@dataclass(frozen=True, slots=True)
class Ranges:
    """What was seen.

    Attributes:
        amax: By tensor, the |x| that the largest quantised number will stand for.
        samples: How many sets of inputs were run.
        method: How `amax` was chosen.
        source: Where the samples come from.
        synthetic: Whether they were made up.
        channels: Of some tensors, what was seen of each slice along the last axis.
    """

    amax: Mapping[str, float]
    samples: int
    method: Method
    source: str
    synthetic: bool = False
    channels: Mapping[str, tuple[Half, ...]] = field(default_factory=dict)


def observe(
    model: Model,
    tensors: Sequence[str],
    samples: Iterable[Mapping[str, np.ndarray[Any, Any]]],
    method: Method = "minmax",
    *,
    source: str = "the given samples",
    synthetic: bool = False,
    by_channel: Sequence[str] = (),
) -> Ranges:
    """Run the model on every sample and measure float tensors of its main graph.

    Args:
        by_channel: Which of them to measure along their last axis, too. Their rank is known.

    Raises:
        BadOption: there is no such method.
        BadSample: a tensor is not finite on a sample; or what reading the samples raises.
        InvalidExport, ParityFailed, NativeCrash, OutOfMemory: ONNX Runtime cannot load or run the model.
    """
    if method not in METHODS:
        raise BadOption(f"there is no calibration method {method!r}", remedy=f"one of {', '.join(METHODS)}")
    from graphkit.tensor_files import read_tensors, write_tensors

    count = 0
    with tempfile.TemporaryDirectory(prefix="graphkit-calibration-") as folder:
        path = Path(folder, "model.onnx")
        _watched(model, tensors, method, by_channel).save(path, durable=False)
        child = ort_worker()
        child.call(
            f"{_CHILD}:begin",
            path=str(path),
            method=method,
            tensors=list(tensors),
            percent=PERCENT,
            by_channel=list(by_channel),
        )
        for sample in samples:
            count += 1
            bad = child.call(f"{_CHILD}:collect", inputs=write_tensors(sample, Path(folder)))
            if bad is not None:
                raise BadSample(
                    f"`{bad}` is not finite in float32, on sample {count} of {source}",
                    remedy="leave that sample out, or look for the cause with graphkit locate: no scale can hold it",
                )
        amax = dict(zip(tensors, child.call(f"{_CHILD}:finish"), strict=True))
        logged = read_tensors(child.call(f"{_CHILD}:channels", folder=folder)) if by_channel else {}
    channels = {name: halves(logged, name) for name in by_channel}
    return Ranges(amax, count, method, source, synthetic, channels)


def _watched(model: Model, tensors: Sequence[str], method: Method, by_channel: Sequence[str]) -> Model:
    """The model with one more output per tensor: its largest |x|, or itself."""
    graph = model.ir.clone()
    values = {v.name: v for v in (*graph.graph.inputs, *(o for n in graph.graph for o in n.outputs))}
    for position, name in enumerate(tensors):
        itself = method != "minmax" or name in by_channel
        watched = _itself(graph, values[name]) if itself else _largest(graph, values[name])
        watched.name = f"{_PREFIX}{position}"
        graph.graph.outputs.append(watched)
    return replace(model, ir=graph)


def _largest(graph: ir.Model, value: ir.Value) -> ir.Value:
    """max(max(x), -min(x)): two reductions that read x, where Abs would write it again. Without axes they reduce all
    of them, at every opset."""
    import onnx_ir as ir

    high, low = (ir.node(op, [value], {"keepdims": 0}) for op in ("ReduceMax", "ReduceMin"))
    negated = ir.node("Neg", low.outputs)
    largest = ir.node("Max", [high.outputs[0], negated.outputs[0]])
    return _added(graph, value, high, low, negated, largest, shape=())


def _itself(graph: ir.Model, value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    return _added(graph, value, ir.node("Identity", [value]), shape=value.shape)


def _added(graph: ir.Model, value: ir.Value, *nodes: ir.Node, shape: Any) -> ir.Value:
    import onnx_ir as ir

    graph.graph.extend(nodes)
    made = nodes[-1].outputs[0]
    made.type = ir.TensorType(value.dtype or ir.DataType.FLOAT)
    made.shape = shape if shape is None or isinstance(shape, ir.Shape) else ir.Shape(shape)
    return made
