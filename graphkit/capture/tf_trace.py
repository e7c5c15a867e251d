"""From a callee to one concrete function of plain tensors: one input per leaf, one output per name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from graphkit.capture.tf_callee import Callee, Slot
from graphkit.capture.tf_example import invoke
from graphkit.capture.tf_outputs import named_outputs
from graphkit.capture.tf_source_line import line_of_error
from graphkit.capture.torch_example import Leaf
from graphkit.errors import DataDependentBranch, GraphkitError, ShapeMismatch


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced function.

    Attributes:
        concrete: The concrete function; what it captures is among its inputs.
        inputs: Its tensor for each leaf, by name.
        outputs: Name and tensor of each output, in order.
    """

    concrete: Any
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, Any], ...]


def trace(callee: Callee, leaves: tuple[Leaf, ...]) -> Trace:
    """Trace a callee on symbolic tensors.

    Raises:
        DataDependentBranch: its Python code branches on the value of a tensor.
        ShapeMismatch: its own code rejects the inputs.
        CaptureFailed: it returns something that holds no dense tensors.
    """
    import tensorflow as tf

    names = [leaf.name for leaf in leaves]
    if isinstance(callee.function, tf.types.experimental.ConcreteFunction):
        return _traced_already(callee, names)
    outputs: list[str] = []

    def flat(*tensors: Any) -> list[Any]:
        result = invoke(callee, leaves, dict(zip(names, tensors, strict=True)))
        named = named_outputs(result, callee.outputs, names)
        outputs[:] = [name for name, _ in named]
        return [tf.convert_to_tensor(value) for _, value in named]

    specs = [_tensor_spec(leaf) for leaf in leaves]
    try:
        # Not autograph: a callee that needs it is a tf.function and brings it along.
        concrete = tf.function(flat, autograph=False).get_concrete_function(*specs)
    except GraphkitError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise rejection(error, leaves) from error
    arguments = tuple(t.name for t in concrete.inputs[: len(names)])
    return Trace(concrete, arguments, tuple(zip(outputs, concrete.outputs, strict=True)))


def _traced_already(callee: Callee, names: list[str]) -> Trace:
    """A concrete function as it is: its own graph has the names that the user knows, and no call around it.

    Its tensors are those of its structured signature, flattened as TensorFlow does it.
    """
    import tensorflow as tf

    concrete: Any = callee.function
    slots = [s for s in tf.nest.flatten((callee.args, dict(callee.kwargs))) if isinstance(s, Slot)]
    tensor = {slot.name: t.name for slot, t in zip(slots, concrete.inputs, strict=False)}
    structured = concrete.structured_outputs
    numbers = iter(range(len(concrete.outputs)))

    def number(leaf: Any) -> Any:
        dense = leaf is not None and isinstance(leaf, tf.Tensor | tf.TensorSpec)
        return next(numbers) if dense else leaf

    numbered = tf.nest.map_structure(number, structured)
    outputs = named_outputs(numbered, callee.outputs, names)
    return Trace(
        concrete, tuple(tensor[name] for name in names), tuple((name, concrete.outputs[i]) for name, i in outputs)
    )


def rejection(error: Exception, leaves: tuple[Leaf, ...]) -> GraphkitError:
    """What it means that the model's own code raised."""
    import tensorflow as tf

    line = line_of_error(error)
    where = str(line) if line else None
    if isinstance(error, tf.errors.OperatorNotAllowedInGraphError):
        return DataDependentBranch(
            "the model's Python code branches (or loops) on the value of a tensor",
            where=where,
            remedy="decorate the method with @tf.function, which turns it into tf.cond; or write tf.cond or tf.where",
        )
    shown = ", ".join(str(leaf.spec) for leaf in leaves) or "none"
    return ShapeMismatch(
        f"the model's own code rejects these inputs: {type(error).__name__}: {sentence(error)}",
        where=where,
        details=(f"inputs: {shown}",),
        remedy="give shapes the model takes; add :int64 or :int32 for indices (--shape ids=batch,seq:int32)",
    )


_NOISE = re.compile(r"^(in user code:|File \"|Exception encountered when calling|Arguments received by|\*|\s*$|~|\^)")


def sentence(error: BaseException) -> str:
    """The line of an error's text that says something; TensorFlow and Keras wrap it in the way there."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = text.splitlines()
    if text.lstrip().startswith("in user code:"):
        last = [line.strip() for line in lines if re.match(r"^    \w+(Error|Exception): ", line)]
        if last:
            return last[-1][:300]
    useful = [line.strip() for line in lines if not _NOISE.match(line.strip())]
    return (useful or [type(error).__name__])[0][:300]


def _tensor_spec(leaf: Leaf) -> Any:
    import tensorflow as tf

    shape = [d if isinstance(d, int) else None for d in leaf.spec.shape or ()]
    return tf.TensorSpec(shape, tf.as_dtype(leaf.spec.dtype), name=re.sub(r"\W", "_", leaf.name))
