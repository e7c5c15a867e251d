"""A traced TensorFlow source as one function of named tensors, which TensorFlow's exporters can write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture import tf_state
from graphkit.capture.request import CaptureRequest
from graphkit.capture.tf_example import invoke, leaves_for
from graphkit.capture.tf_outputs import named_outputs
from graphkit.capture.tf_quiet import quiet
from graphkit.capture.tf_trace import rejection
from graphkit.errors import GraphkitError, StateMutated

if TYPE_CHECKING:
    from graphkit.capture.tf_source import TfSource
    from graphkit.capture.torch_example import Leaf

KEY = "serving_default"
"""Name of the signature: what TensorFlow Serving calls where a client names none."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A function with its names.

    Attributes:
        concrete: Takes its tensors by name, and returns a dict of tensors.
        holder: A `tf.Module` that holds its variables.
        renamed_inputs, renamed_outputs: The source's name -> the name here, where a signature cannot spell it.
    """

    concrete: Any
    holder: Any
    renamed_inputs: dict[str, str]
    renamed_outputs: dict[str, str]


def signature_of(source: TfSource, request: CaptureRequest) -> Signature:
    """Trace a source with the shapes of the request.

    Raises:
        StateMutated: it assigns variables.
        DataDependentBranch, ShapeMismatch, CaptureFailed: as its capture.
    """
    import tensorflow as tf

    callee = source.callee
    leaves = leaves_for(callee, request)
    names = [leaf.name for leaf in leaves]
    inputs = _spelt(names)
    outputs: list[str] = []

    def call(*tensors: Any) -> dict[str, Any]:
        result = invoke(callee, leaves, dict(zip(names, tensors, strict=True)))
        named = named_outputs(result, callee.outputs, names)
        outputs[:] = [name for name, _ in named]
        values = (tf.convert_to_tensor(value) for _, value in named)
        return dict(zip(_spelt(outputs), values, strict=True))

    try:
        with quiet():
            specs = [_tensor_spec(leaf, name) for leaf, name in zip(leaves, inputs, strict=True)]
            # Not autograph: a callee that needs it is a tf.function and brings it along.
            concrete = tf.function(call, autograph=False).get_concrete_function(*specs)
    except GraphkitError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise rejection(error, leaves) from error
    _refuse_state(tf_state.assigned(concrete, (*names, *outputs)), source.name)
    holder = tf.Module()
    holder.variables_of_the_function = list(concrete.graph.variables)
    holder.function = callee.held
    return Signature(concrete, holder, _changed(names, inputs), _changed(outputs, _spelt(outputs)))


def _tensor_spec(leaf: Leaf, name: str) -> Any:
    import tensorflow as tf

    return tf.TensorSpec([d if isinstance(d, int) else None for d in leaf.spec.shape or ()], leaf.spec.dtype, name)


def _refuse_state(states: Sequence[tf_state.State], name: str) -> None:
    if states:
        listed = ", ".join(f"`{s.spec.name}`" for s in states[:6])
        raise StateMutated(
            f"{name} assigns {listed} while it runs: what it returns depends on what ran before, so that no copy can "
            "be held against it",
            remedy="convert a function that assigns no variable, such as the model's call in inference mode",
            data={"state": [s.spec.name for s in states]},
        )


def _spelt(names: Sequence[str]) -> list[str]:
    """Names that are arguments in Python and keys of a signature, each once."""
    spelt: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name)
        plain = plain if plain[:1].isalpha() else f"x{plain}"
        while plain in spelt:
            plain += "_"
        spelt.append(plain)
    return spelt


def _changed(names: Sequence[str], spelt: Sequence[str]) -> dict[str, str]:
    return {name: new for name, new in zip(names, spelt, strict=True) if name != new}
