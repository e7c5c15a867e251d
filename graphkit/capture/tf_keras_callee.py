"""A Keras model or layer as a callee: its inputs, and the names that it has for inputs and outputs."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from graphkit.capture.tf_callee import Callee, Param, Slot, is_automatic, spec_of
from graphkit.errors import NotAModel
from graphkit.shapes import TensorSpec


def is_layer(target: Any) -> bool:
    """Whether it is a Keras layer; a model is one."""
    import keras

    return isinstance(target, keras.layers.Layer)


def callee_of(layer: Any) -> Callee:
    """The callee for a Keras model or layer; it always runs with `training=False`.

    A Sequential or Functional model declares its inputs. A subclassed model or a bare layer that was built remembers
    the shapes it was built with; its leading dimension is free. What was never called declares nothing.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise NotAModel(
            f"Keras runs on {keras.backend.backend()} here", remedy="set KERAS_BACKEND=tensorflow and start again"
        )
    kind = "Keras model" if isinstance(layer, keras.Model) else "Keras layer"
    function = functools.partial(layer, training=False)
    layers = tuple(_paths(layer, layer.name))
    stock = all(type(each).__module__.startswith("keras.") for each in layer._flatten_layers())
    struct, outputs = _functional(layer)
    if struct is not None:
        slots, specs = _named_inputs(struct)
        return Callee(kind, function, (slots,), {}, specs, outputs=outputs, layers=layers, stock=stock)
    parameters = _call_parameters(layer)
    slots, specs = _built_with(layer, parameters)
    rest = tuple(p for p in parameters if p.name not in slots)
    return Callee(kind, function, (), slots, specs, rest, firm=False, layers=layers, stock=stock)


def _functional(layer: Any) -> tuple[Any, tuple[str, ...]]:
    """The structure of a Functional or built Sequential model's inputs, and its outputs' own names."""
    import keras

    model = layer
    if isinstance(layer, keras.Sequential):
        model = layer._functional
    if model is None or not hasattr(model, "_inputs_struct"):
        return None, ()
    names = list(model.output_names)
    layers = [t._keras_history.operation for t in model.outputs]
    if isinstance(model._outputs_struct, Mapping) or len(set(names)) != len(names):
        return model._inputs_struct, ()
    if any(_is_made_up(name, operation) for name, operation in zip(names, layers, strict=True)):
        return model._inputs_struct, ()
    return model._inputs_struct, tuple(names)


def _named_inputs(struct: Any) -> tuple[Any, tuple[TensorSpec, ...]]:
    """Slots in place of the KerasTensors. A key of a dict is a name; so is the name of an `Input`, unless it was
    made up; the others are `input`, or `input_0`, `input_1`."""
    import tensorflow as tf

    specs: list[TensorSpec] = []
    flat = tf.nest.flatten(struct)
    position = {id(t): i for i, t in enumerate(flat)}

    def visit(value: Any, key: str | None) -> Any:
        if isinstance(value, Mapping):
            return {k: visit(v, str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(visit(v, None) for v in value)
        fallback = "input" if len(flat) == 1 else f"input_{position[id(value)]}"
        given = None if is_automatic(value.name, "keras_tensor", "input_layer") else value.name
        specs.append(spec_of(value, key or given or fallback))
        return Slot(specs[-1].name)

    slots = visit(struct, None)
    return slots, tuple(specs)


def _is_made_up(name: str, layer: Any) -> bool:
    from keras.src.utils.naming import to_snake_case

    bases = (to_snake_case(type(layer).__name__), "keras_tensor", "input_layer")
    return is_automatic(name, *bases)


def _paths(layer: Any, path: str) -> Iterator[str]:
    yield path
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _paths(inner, f"{path}/{inner.name}")


def _call_parameters(layer: Any) -> tuple[Param, ...]:
    parameters = inspect.signature(layer.call).parameters.values()
    return tuple(
        Param(p.name, p.default is p.empty, None if p.default is p.empty else p.default)
        for p in parameters
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and not re.fullmatch(r"training|mask|\w+_mask", p.name)
    )


def _built_with(layer: Any, parameters: tuple[Param, ...]) -> tuple[dict[str, Any], tuple[TensorSpec, ...]]:
    """The shapes that Keras remembers from the first call: `input_shape`, or one `<parameter>_shape` each."""
    shapes = getattr(layer, "_build_shapes_dict", None) or {}
    required = [p.name for p in parameters if p.required]
    if len(required) == 1 and len(shapes) == 1:
        shapes = {required[0]: next(iter(shapes.values()))}
    else:
        shapes = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    slots: dict[str, Any] = {}
    specs: list[TensorSpec] = []
    dtype = getattr(layer, "input_dtype", None) or "float32"
    for parameter in parameters:
        shape = shapes.get(parameter.name)
        if _is_shape(shape):
            slots[parameter.name] = Slot(parameter.name)
            specs.append(TensorSpec(parameter.name, dtype, (None, *shape[1:])))
        elif isinstance(shape, Mapping) and shape and all(map(_is_shape, shape.values())):
            slots[parameter.name] = {key: Slot(f"{parameter.name}.{key}") for key in shape}
            specs.extend(TensorSpec(f"{parameter.name}.{key}", dtype, (None, *each[1:])) for key, each in shape.items())
    return (slots, tuple(specs)) if set(required) <= slots.keys() else ({}, ())


def _is_shape(value: Any) -> TypeGuard[Sequence[int | None]]:
    return isinstance(value, list | tuple) and bool(value) and all(d is None or type(d) is int for d in value)
