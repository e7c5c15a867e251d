"""Small models for the tests of `diff`."""

import copy

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk

FLOAT = TensorProto.FLOAT


def tensor(name, *shape, seed=0):
    values = np.random.default_rng([seed, *name.encode()]).standard_normal(shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(nodes, weights=(), *, inputs=("x",), outputs=("y",), shape=("n", 16), opset=20, functions=(), extra=()):
    infos = [helper.make_tensor_value_info(name, FLOAT, shape) for name in inputs]
    made = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", infos, made, list(weights))
    opsets = [helper.make_opsetid("", opset), *extra]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def layers(count=3, width=16, **options):
    """Blocks of MatMul, Add, Relu and a residual Add."""
    nodes, weights, value = [], [], "x"
    for k in range(count):
        weights += [tensor(f"w{k}", width, width), tensor(f"b{k}", width)]
        new = "y" if k == count - 1 else f"r{k}"
        nodes += [
            helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"], f"/layers.{k}/MatMul"),
            helper.make_node("Add", [f"m{k}", f"b{k}"], [f"a{k}"], f"/layers.{k}/Add"),
            helper.make_node("Relu", [f"a{k}"], [f"h{k}"], f"/layers.{k}/Relu"),
            helper.make_node("Add", [value, f"h{k}"], [new], f"/layers.{k}/Add_1"),
        ]
        value = new
    return model(nodes, weights, **options)


def edited(base, change):
    other = copy.deepcopy(base)
    change(other.graph)
    return other


def node(graph, output):
    return next(n for n in graph.node if output in n.output)


def weight(graph, name):
    return next(t for t in graph.initializer if t.name == name)


def set_weight(graph, name, values):
    weight(graph, name).CopyFrom(numpy_helper.from_array(values, name))


def diff(a, b, folder, **options):
    paths = []
    for side, each in (("a", a), ("b", b)):
        paths.append(folder / f"{side}.onnx")
        paths[-1].write_bytes(each.SerializeToString())
    return gk.diff(*paths, **options)


def counts(delta):
    """What was found, zeros left out."""
    wanted = ("removed", "added", "changed", "rewired", "weights_changed", "signature", "facts")
    return {name: count for name, count in delta.count().items() if name in wanted and count}
