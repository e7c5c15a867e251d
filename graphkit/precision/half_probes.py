"""The largest |x| of tensors inside bodies of If, Loop and Scan: the bodies hand it out themselves.

A body's tensors are out of reach from outside. So each body gets one more output, a vector with the largest |x| of
each of its float32 tensors, which its node hands on: stacked by a Loop or Scan, padded with zeros by the branches of
an If.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphkit.precision.half_types import JUNCTIONS, bodies, is_float, set_dtype

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model


def probed(model: Model) -> tuple[Model, dict[str, list[ir.Value]]]:
    """A copy whose bodies hand out their ranges, and, by the name of each output that does, whose they are.

    The values are those of `model` itself; the model too, where nothing in it has a body.
    """
    if not any(_has_bodies(node) for node in model.ir.graph):
        return model, {}
    copy = model.ir.clone()
    probes: dict[str, list[ir.Value]] = {}
    maker = _Probes(model.opset)
    for original, node in zip(list(model.ir.graph), list(copy.graph), strict=True):
        if _has_bodies(original):
            output, values = maker.outer(original, node)
            if output is not None:
                probes[output.name or ""] = values
    return replace(model, ir=copy), probes


def _has_bodies(node: ir.Node) -> bool:
    return node.op_type in JUNCTIONS and not node.domain


class _Probes:
    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._count = 0

    def outer(self, original: ir.Node, node: ir.Node) -> tuple[ir.Value | None, list[ir.Value]]:
        """Let a node hand out what its bodies see: the new output, and whose the ranges in its last axis are."""
        import onnx_ir as ir

        inner = [self._body(o, b) for o, b in zip(bodies(original), bodies(node), strict=True)]
        total = sum(len(values) for _, values in inner)
        if total == 0:
            return None, []
        before = 0
        for (parts, values), body in zip(inner, bodies(node), strict=True):
            zeros = [self._constant(body, [0.0] * n) for n in (before, total - before - len(values))]
            row = self._op(body, "Concat", [zeros[0], *parts, zeros[1]], axis=0)
            row.shape = ir.Shape([total])
            body.outputs.append(row)
            before += len(values)
        node.resize_outputs(len(node.outputs) + 1)
        output = node.outputs[-1]
        output.name = self._name()
        set_dtype(output, ir.DataType.FLOAT)
        return output, [v for _, values in inner for v in values]

    def _body(self, original: ir.Graph, body: ir.Graph) -> tuple[list[ir.Value], list[ir.Value]]:
        """Vectors inside a body, and whose the ranges in them are, in the same order."""
        parts: list[ir.Value] = []
        values: list[ir.Value] = []
        pairs = list(zip(original, body, strict=True))  # before the body grows
        for theirs, ours in zip(original.inputs, body.inputs, strict=True):
            self._watch(body, theirs, ours, parts, values)
        for before, node in pairs:
            for theirs, ours in zip(before.outputs, list(node.outputs), strict=True):
                self._watch(body, theirs, ours, parts, values)
            if _has_bodies(before):
                output, inner = self.outer(before, node)
                if output is not None:
                    parts.append(self._over_runs(body, node, output, len(inner)))
                    values.extend(inner)
        return parts, values

    def _watch(
        self, body: ir.Graph, theirs: ir.Value, ours: ir.Value, parts: list[ir.Value], values: list[ir.Value]
    ) -> None:
        if not is_float(theirs):
            return
        flat = self._op(body, "Reshape", [self._op(body, "Abs", [ours]), self._constant(body, [-1], whole=True)])
        some = self._op(body, "Concat", [flat, self._constant(body, [0.0])], axis=0)  # an empty tensor has no largest
        parts.append(self._op(body, "ReduceMax", [some], keepdims=1))
        values.append(theirs)

    def _over_runs(self, body: ir.Graph, node: ir.Node, output: ir.Value, width: int) -> ir.Value:
        if node.op_type == "If":
            return output
        row = self._op(
            body, "Reshape", [self._constant(body, [0.0] * width), self._constant(body, [1, -1], whole=True)]
        )
        some = self._op(body, "Concat", [output, row], axis=0)
        if self._opset < 18:
            return self._op(body, "ReduceMax", [some], keepdims=0, axes=[0])
        return self._op(body, "ReduceMax", [some, self._constant(body, [0], whole=True)], keepdims=0)

    def _constant(self, body: ir.Graph, values: list[Any], *, whole: bool = False) -> ir.Value:
        import numpy as np
        import onnx_ir as ir

        tensor = ir.tensor(np.asarray(values, np.int64 if whole else np.float32))
        return self._op(body, "Constant", [], value=tensor)

    def _op(self, body: ir.Graph, kind: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        import onnx_ir as ir

        node = ir.node(kind, inputs, attributes, name=self._name())
        node.outputs[0].name = self._name()
        set_dtype(node.outputs[0], ir.DataType.FLOAT)
        body.append(node)
        return node.outputs[0]

    def _name(self) -> str:
        self._count += 1
        return f"graphkit.probe.{self._count}"
