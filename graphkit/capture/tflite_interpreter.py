"""TFLite's own interpreter, by public names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture.request import Arrays
from graphkit.capture.tf_quiet import quiet
from graphkit.capture.tflite_entry import Entry
from graphkit.errors import CorruptFile, ShapeMismatch

if TYPE_CHECKING:
    import numpy as np

THREADS = 2


class Interpreter:
    """A TFLite file, ready to run.

    TFLite's own kernels, without XNNPACK or another delegate: what those compute differs between machines.

    Args:
        path: The file.
        entry: What of it to run.
        flex: Whether the file has operators of TensorFlow's own, which are a delegate too.

    Raises:
        CorruptFile: TFLite refuses the file.
    """

    def __init__(self, path: Path, entry: Entry, *, flex: bool) -> None:
        import tensorflow as tf

        kinds = tf.lite.experimental.OpResolverType
        kernels = kinds.AUTO if flex else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            # As bytes: the interpreter would map the file, and die with it if somebody truncates it.
            with quiet():
                self._native = tf.lite.Interpreter(
                    model_content=path.read_bytes(), experimental_op_resolver_type=kernels, num_threads=THREADS
                )
        except (ValueError, RuntimeError) as error:
            raise CorruptFile(f"TFLite refuses {path.name}: {_first(error)}") from error
        self._entry = entry

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by their public names. Variables begin with zeros, as after loading.

        Raises:
            ShapeMismatch: the interpreter rejects the inputs.
        """
        try:
            return self._by_signature(inputs) if self._entry.key is not None else self._by_position(inputs)
        except (ValueError, RuntimeError, IndexError) as error:
            shown = ", ".join(f"{n}: {v.dtype}{list(v.shape)}" for n, v in inputs.items())
            raise ShapeMismatch(
                f"TFLite's interpreter rejects these inputs: {_first(error)}",
                details=(f"inputs: {shown}",),
                remedy="give shapes the model takes; --dim name=min:opt:max for sizes it accepts",
            ) from error

    def _by_signature(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        self._native.reset_all_variables()
        found = self._native.get_signature_runner(self._entry.key)(**inputs)
        return {spec.name: found[self._entry.renamed.get(spec.name, spec.name)] for spec in self._entry.outputs}

    def _by_position(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        details = self._native.get_input_details()
        values = [inputs[spec.name] for spec in self._entry.inputs]
        for detail, value in zip(details, values, strict=True):
            self._native.resize_tensor_input(detail["index"], value.shape)
        self._native.allocate_tensors()
        self._native.reset_all_variables()
        for detail, value in zip(details, values, strict=True):
            self._native.set_tensor(detail["index"], value)
        self._native.invoke()
        indices = [detail["index"] for detail in self._native.get_output_details()]
        return {s.name: self._native.get_tensor(i) for s, i in zip(self._entry.outputs, indices, strict=True)}


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
