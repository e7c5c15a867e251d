"""A model as plain values, once from its view and once from onnx's own parse, to be compared."""

from __future__ import annotations

import onnx

from graphkit.view.dtypes import name_of

KINDS = onnx.AttributeProto.AttributeType


def of_view(view):
    """What `of_proto` says of the same model."""
    return {
        "ir_version": view.ir_version,
        "opsets": dict(view.opsets),
        "producer": view.producer,
        "metadata": dict(view.metadata),
        "graph": _graph_of_view(view.graph),
        "functions": [
            {
                "key": f.key,
                "attributes": list(f.attributes),
                "defaults": [_attribute_of_view(a) for a in f.defaults],
                "opsets": dict(f.opsets),
                "body": _graph_of_view(f.body),
            }
            for f in view.functions
        ],
    }


def of_proto(model):
    return {
        "ir_version": model.ir_version,
        "opsets": _opsets(model.opset_import),
        "producer": (model.producer_name, model.producer_version),
        "metadata": {p.key: p.value for p in model.metadata_props},
        "graph": _graph_of_proto(model.graph),
        "functions": [
            {
                "key": (_domain(f.domain), f.name, f.overload),
                "attributes": list(f.attribute),
                "defaults": [_attribute_of_proto(a) for a in f.attribute_proto],
                "opsets": _opsets(f.opset_import),
                "body": {
                    "name": f.name,
                    "inputs": list(f.input),
                    "outputs": list(f.output),
                    "types": {v.name: _type_of_proto(v.type) for v in f.value_info},
                    "weights": [],
                    "nodes": [_node_of_proto(n) for n in f.node],
                    "metadata": {p.key: p.value for p in f.metadata_props},
                },
            }
            for f in model.functions
        ],
    }


def _domain(text):
    return "" if text == "ai.onnx" else text


def _opsets(imports):
    return {_domain(o.domain): o.version for o in imports}


def _graph_of_view(graph):
    return {
        "name": graph.name,
        "inputs": [graph.values[v] for v in graph.inputs],
        "outputs": [graph.values[v] for v in graph.outputs],
        "types": {graph.values[v]: _type_of_view(t) for v, t in graph.types.items()},
        "weights": [_weight_of_view(w) for w in graph.initializers.values()],
        "nodes": [_node_of_view(n) for n in graph.nodes],
        "metadata": dict(graph.metadata),
    }


def _graph_of_proto(graph):
    infos = [*graph.value_info, *graph.input, *graph.output]
    return {
        "name": graph.name,
        "inputs": [v.name for v in graph.input],
        "outputs": [v.name for v in graph.output],
        "types": {v.name: _type_of_proto(v.type) for v in infos if v.HasField("type")},
        "weights": [*map(_weight_of_proto, graph.initializer), *map(_sparse_of_proto, graph.sparse_initializer)],
        "nodes": [_node_of_proto(n) for n in graph.node],
        "metadata": {p.key: p.value for p in graph.metadata_props},
    }


def _node_of_view(node):
    return {
        "op": (node.domain, node.op, node.overload, node.name),
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "attributes": [_attribute_of_view(a) for a in node.graph.attributes[node.index]],
        "metadata": node.metadata,
    }


def _node_of_proto(node):
    return {
        "op": (_domain(node.domain), node.op_type, node.overload, node.name),
        "inputs": list(node.input),
        "outputs": list(node.output),
        "attributes": [_attribute_of_proto(a) for a in node.attribute],
        "metadata": {p.key: p.value for p in node.metadata_props},
    }


def _attribute_of_view(attribute):
    plain = {"TENSOR": _weight_of_view, "GRAPH": _graph_of_view, "TYPE_PROTO": _type_of_view}
    kind, value = attribute.kind, attribute.value
    if attribute.reference is not None:
        return attribute.name, kind, attribute.reference
    if kind == "SPARSE_TENSOR":
        return attribute.name, kind, _weight_of_view(value)
    convert = plain.get(kind.removesuffix("S"))
    if convert is not None:
        value = [convert(v) for v in value] if kind.endswith("S") else convert(value)
    elif isinstance(value, tuple):
        value = [repr(v) for v in value]
    else:
        value = repr(value)
    return attribute.name, kind, value


def _attribute_of_proto(attribute):
    kind = KINDS.Name(attribute.type)
    if attribute.ref_attr_name:
        return attribute.name, kind, attribute.ref_attr_name
    value = onnx.helper.get_attribute_value(attribute)
    plain = {"TENSOR": _weight_of_proto, "GRAPH": _graph_of_proto, "TYPE_PROTO": _type_of_proto}
    if kind == "SPARSE_TENSOR":
        return attribute.name, kind, _sparse_of_proto(value)
    convert = plain.get(kind.removesuffix("S"))
    if convert is not None:
        value = [convert(v) for v in value] if kind.endswith("S") else convert(value)
    elif kind.endswith("S"):
        value = [repr(v) for v in value]
    else:
        value = repr(value)
    return attribute.name, kind, value


def _weight_of_view(weight):
    if hasattr(weight, "indices"):
        return "sparse", list(weight.dims), _weight_of_view(weight.values), _weight_of_view(weight.indices)
    return weight.name, weight.dtype, list(weight.dims)


def _weight_of_proto(tensor):
    return tensor.name, name_of(tensor.data_type), list(tensor.dims)


def _sparse_of_proto(sparse):
    return "sparse", list(sparse.dims), _weight_of_proto(sparse.values), _weight_of_proto(sparse.indices)


def _type_of_view(type_):
    shape = None if type_.shape is None else list(type_.shape)
    return type_.kind, type_.dtype, shape, _type_of_view(type_.element) if type_.element is not None else None


def _type_of_proto(type_):
    field = type_.WhichOneof("value")
    if field is None:
        return "", None, None, None
    kind, inner = field.removesuffix("_type"), getattr(type_, field)
    if kind in ("tensor", "sparse_tensor"):
        shape = [_dim(d) for d in inner.shape.dim] if inner.HasField("shape") else None
        return kind, name_of(inner.elem_type), shape, None
    if kind == "map":
        return kind, name_of(inner.key_type), None, _type_of_proto(inner.value_type)
    return kind, None, None, _type_of_proto(inner.elem_type) if kind != "opaque" else None


def _dim(dim):
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
