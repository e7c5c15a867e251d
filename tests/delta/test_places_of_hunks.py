"""One hunk is one place: what blocks share does not make one hunk of them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphkit.delta.folding import fold
from tests.delta.models import diff, model, tensor
from tests.delta.test_laws import facts

ROWS, NOTHING = ("shape", "own shape", "mask", "copied mask"), frozenset()


def blocks(count, fused=NOTHING, rows=NOTHING, *, bare=False):
    """Residual blocks whose inner part is one node where it is fused.

    Args:
        count: How many.
        fused: Those where Reshape, Exp and Reshape are one Gelu.
        rows: What stands beside them where they are not: arithmetic on a shape for all or for each of them, a mask
            for all of them, and the copy that each one makes of it.
        bare: Leave the names of nodes out.
    """
    nodes, weights = [], [tensor("e", 16, 16), numpy_helper.from_array(numpy_helper.to_array(tensor("o", 1)), "o")]
    nodes.append(helper.make_node("MatMul", ["x", "e"], ["r"], "/embed/MatMul"))
    loose = [k for k in range(count) if k not in fused]
    if loose and "shape" in rows:
        nodes += _shape("r", "s", "/Shape")
    if loose and {"mask", "copied mask"} & set(rows):
        nodes += [helper.make_node("Neg", ["r"], ["n"], "/Neg"), helper.make_node("Tanh", ["n"], ["mask"], "/Tanh")]
    value = "r"
    for k in range(count):
        at, new = f"/layers.{k}", "y" if k == count - 1 else f"r{k}"
        weights.append(tensor(f"w{k}", 16, 16))
        nodes.append(helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"], f"{at}/MatMul"))
        nodes += _inner(k, at, value, k in fused, rows)
        nodes.append(helper.make_node("Sigmoid", [f"v{k}"], [f"g{k}"], f"{at}/Sigmoid"))
        nodes.append(helper.make_node("Add", [value, f"g{k}"], [new], f"{at}/Add"))
        value = new
    for node in nodes if bare else ():
        node.name = ""
    return model(nodes, weights)


def _inner(k, at, value, fused, rows):
    if fused:
        return [helper.make_node("Gelu", [f"m{k}"], [f"v{k}"], f"{at}/Gelu")]
    own = "own shape" in rows
    shape = f"s{k}" if own else "s" if "shape" in rows else "o64"
    nodes = _shape(value, shape, f"{at}/Shape") if own else []
    if shape == "o64":
        nodes.append(helper.make_node("Constant", [], [f"c{k}"], value=_int64("", [-1, 16])))
        shape = f"c{k}"
    inner = f"t{k}"
    nodes.append(helper.make_node("Reshape", [f"m{k}", shape], [inner], f"{at}/Reshape"))
    if "mask" in rows:
        nodes.append(helper.make_node("Mul", [inner, "mask"], [f"p{k}"], f"{at}/Mul"))
        inner = f"p{k}"
    if "copied mask" in rows:
        nodes.append(helper.make_node("Abs", ["mask"], [f"a{k}"], f"{at}/Abs"))
        nodes.append(helper.make_node("Sub", [inner, f"a{k}"], [f"q{k}"], f"{at}/Sub"))
        inner = f"q{k}"
    nodes.append(helper.make_node("Exp", [inner], [f"u{k}"], f"{at}/Exp"))
    nodes.append(helper.make_node("Reshape", [f"u{k}", shape], [f"v{k}"], f"{at}/Reshape_1"))
    return nodes


def _shape(value, name, at):
    return [
        helper.make_node("Shape", [value], [f"{name}_0"], at),
        helper.make_node("Slice", [f"{name}_0", *_bounds(name)], [f"{name}_1"], f"{at}/Slice"),
        helper.make_node("Constant", [], [f"{name}_2"], value=_int64("", [16])),
        helper.make_node("Concat", [f"{name}_1", f"{name}_2"], [name], f"{at}/Concat", axis=0),
    ][slice(None)]


def _bounds(name):
    return [f"{name}_1"]
