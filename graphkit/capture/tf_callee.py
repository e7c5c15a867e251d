"""What TensorFlow can call, told apart by its class: the function, its arguments, and the names it has for them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphkit.errors import NotAModel
from graphkit.shapes import TensorSpec


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one tensor among the arguments. Attributes: its `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter whose tensors the source does not declare.

    Attributes:
        name: Its name.
        required: Whether it has no default.
        default: Its default.
    """

    name: str
    required: bool
    default: Any = None


@dataclass(frozen=True, slots=True)
class Callee:
    """A function of tensors.

    Attributes:
        kind: What it is, for the model's origin.
        function: What to call.
        args: Arguments by position: nested structures with a `Slot` for each tensor.
        kwargs: Arguments by name, likewise.
        declared: Name, dtype and shape of each slot, in order; None for a dimension that may be any size.
        params: Parameters that are declared nowhere.
        outputs: Names that the source itself has for its outputs, in order; () where it has none.
        firm: Whether it takes only what is declared; else that is what an earlier call had, and others may do.
        layers: Paths of its layers, the model's own name first: `unet/encoder/conv_1`.
        stock: Whether all of its code is the framework's own.
        held: What has to live as long as the function: TensorFlow holds a method's object only weakly.
    """

    kind: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    declared: tuple[TensorSpec, ...] = ()
    params: tuple[Param, ...] = ()
    outputs: tuple[str, ...] = ()
    firm: bool = True
    layers: tuple[str, ...] = ()
    stock: bool = False
    held: Any = None


def callee_of(target: Any) -> Callee | None:
    """The callee for a Keras model or layer, a `tf.function`, a concrete function or a `tf.Module`; None for another.

    Raises:
        NotAModel: an object of TensorFlow's that cannot be called on tensors.
    """
    import tensorflow as tf
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    from graphkit.capture import tf_keras_callee

    if tf_keras_callee.is_layer(target):
        return tf_keras_callee.callee_of(target)
    if isinstance(target, tf.types.experimental.ConcreteFunction):
        return of_concrete(target, "tf.ConcreteFunction")
    if isinstance(target, Function):
        return _of_function(target)
    if isinstance(target, tf.Module):
        return _of_module(target)
    return None


def of_concrete(concrete: Any, kind: str) -> Callee:
    """The callee for a function that is traced already, such as the signature of a SavedModel."""
    args, kwargs = concrete.structured_input_signature
    kwargs = {name: kwargs[name] for name in sorted(kwargs)}  # as TensorFlow flattens them; a SavedModel keeps no order
    slots, specs = _slots({**{_argument(concrete, i): a for i, a in enumerate(args)}, **kwargs})
    by_position = tuple(slots[_argument(concrete, i)] for i in range(len(args)))
    return Callee(kind, concrete, by_position, {k: slots[k] for k in kwargs}, specs)


def _of_function(function: Any) -> Callee:
    """With its own `input_signature`; else with that of its only trace; else by its parameters."""
    parameters = _parameters(function.python_function)
    if function.input_signature is not None:
        given = dict(zip(_positions(function, len(function.input_signature)), function.input_signature, strict=True))
        slots, specs = _slots(given)
        rest = [p for n, p in parameters.items() if n not in given]
        return Callee("tf.function", function, tuple(slots.values()), {}, specs, _undeclared(rest))
    traces = function._list_all_concrete_functions()
    if len(traces) == 1 and not traces[0].structured_input_signature[1]:
        known = of_concrete(traces[0], "tf.function")
        if known.declared:
            return Callee("tf.function", function, known.args, known.kwargs, known.declared, firm=False)
    return Callee("tf.function", function, params=_undeclared(list(parameters.values())))


def _of_module(module: Any) -> Callee:
    import tensorflow as tf
    from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

    method = getattr(module, "__call__", None)  # noqa: B004 - the method itself is wanted: it may be a tf.function
    if method is None:
        names = [n for n in dir(module) if isinstance(getattr(type(module), n, None), Function)]
        raise NotAModel(
            f"a {type(module).__name__} is a tf.Module without __call__",
            remedy=f"name the function: {', '.join(f'module.{n}' for n in names)}" if names else "give it a __call__",
        )
    callee = _of_function(method if isinstance(method, Function) else tf.function(method))
    return replace(callee, kind="tf.Module", held=module)


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {
        n: p
        for n, p in inspect.signature(function).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and n != "self"
    }


def _positions(function: Any, count: int) -> list[str]:
    """Names of that many arguments by position; those of `*inputs` are `inputs_0`, `inputs_1`, as TensorFlow has it."""
    parameters = inspect.signature(function.python_function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    return [*names, *(f"{rest}_{i}" for i in range(count - len(names)))][:count]


def _undeclared(parameters: list[inspect.Parameter]) -> tuple[Param, ...]:
    return tuple(Param(p.name, p.default is p.empty, None if p.default is p.empty else p.default) for p in parameters)


def _argument(concrete: Any, position: int) -> str:
    """The name of a positional argument of a concrete function."""
    names = list(concrete.function_type.parameters)
    return names[position] if position < len(names) else f"input_{position}"


def _slots(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[TensorSpec, ...]]:
    """Each argument with a `Slot` in place of every TensorSpec, and what those say. Other values stay."""
    import tensorflow as tf

    specs: list[TensorSpec] = []

    def visit(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, tf.TensorSpec):
            name = ".".join(path)
            specs.append(spec_of(value, name))
            return Slot(name)
        if isinstance(value, Mapping):
            return type(value)({k: visit(v, (*path, str(k))) for k, v in value.items()})  # type: ignore[call-arg]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(visit(v, (*path, f)) for f, v in zip(value._fields, value, strict=True)))
        if isinstance(value, list | tuple):
            return type(value)(visit(v, (*path, str(i))) for i, v in enumerate(value))
        if isinstance(value, tf.TypeSpec):
            raise NotAModel(
                f"input `{'.'.join(path)}` is a {type(value).__name__.removesuffix('Spec')}; ONNX has no such inputs",
                remedy="pass its dense tensors, and build it inside the function",
            )
        return value

    return {name: visit(value, (name,)) for name, value in arguments.items()}, tuple(specs)


def spec_of(spec: Any, name: str) -> TensorSpec:
    """A `tf.TensorSpec`, a symbolic tensor or a KerasTensor as a TensorSpec."""
    import tensorflow as tf

    shape = tf.TensorShape(spec.shape)
    dims = None if shape.rank is None else tuple(shape.as_list())
    return TensorSpec(name, tf.as_dtype(spec.dtype).name, dims)


_COUNTED = re.compile(r"^(.+?)(_\d+)?$")


def is_automatic(name: str, *bases: str) -> bool:
    """Whether a name is one of `bases` with or without a number, as frameworks make up: `dense_3`."""
    matched = _COUNTED.match(name)
    return matched is not None and matched.group(1) in bases
