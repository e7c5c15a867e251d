"""Anything that TensorFlow can call, as a Source: its inputs are made, it is traced, frozen, translated and run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture import tf_state
from graphkit.capture.audit import output_shapes
from graphkit.capture.options import TENSORFLOW, refuse_others
from graphkit.capture.request import Arrays, CaptureRequest
from graphkit.capture.taps import Tape
from graphkit.capture.tf_callee import Callee
from graphkit.capture.tf_example import invoke, leaves_for
from graphkit.capture.tf_freeze import freeze, freeze_without
from graphkit.capture.tf_frozen import Frozen
from graphkit.capture.tf_interface import Interface
from graphkit.capture.tf_outputs import named_outputs
from graphkit.capture.tf_quiet import quiet
from graphkit.capture.tf_source_line import lines_of
from graphkit.capture.tf_state import State
from graphkit.capture.tf_trace import rejection, trace
from graphkit.capture.torch_example import Leaf, example_sizes, values_for
from graphkit.errors import BadOption, GraphkitError
from graphkit.model import Finding, Model, Origin, Rung
from graphkit.shapes import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

Sizes = Mapping[str, int]
Shapes = dict[str, tuple[int, ...]]


class TfSource:
    """A Keras model, a function of TensorFlow's, the signature of a SavedModel, or a GraphDef.

    Args:
        callee: What to call.
        name: What to call it in reports.
        sha256: Digest of the file it came from.
        findings: What loading it noticed.
        options: Options of the request that mean something here.
        frozen: Makes the frozen graph, for a source that is one already.
    """

    def __init__(
        self,
        callee: Callee,
        *,
        name: str,
        sha256: str | None = None,
        findings: tuple[Finding, ...] = (),
        options: frozenset[str] = TENSORFLOW,
        frozen: Callable[[tuple[Leaf, ...]], Frozen] | None = None,
    ) -> None:
        self.name = name
        self._callee = callee
        self._sha256 = sha256
        self._findings = findings
        self.options = options
        self._frozen = frozen
        self._leaves: tuple[Leaf, ...] = ()
        self._states: tuple[State, ...] = ()
        self._idle: tuple[State, ...] = ()
        self._interface = Interface()
        self._asked = CaptureRequest()
        self._last: Frozen | None = None

    @property
    def label(self) -> str:
        import tensorflow as tf

        return f"tensorflow {tf.__version__} (cpu)"

    def capture(self, request: CaptureRequest) -> Model:
        """Capture it; see `Source.capture`."""
        from graphkit.capture.tf_to_onnx import to_onnx

        with quiet():
            frozen = self._freeze(request)
            sizes = example_sizes(self._inputs, request.dims)
            graph = to_onnx(frozen, opset=request.opset)
            if not all(_is_known(value) for value in graph.graph.outputs):
                _true_outputs(graph, list(self._observe(request, sizes)))
        return Model(graph, self._origin(sizes), request.dims)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Make it ready to run; see `RunnableSource.prepare`."""
        self._check_options(request)
        self._asked, self._last = request, None
        with quiet():
            if request.state or request.layout:  # what these change is known once it is traced
                return tuple(t.spec for t in self._freeze(request).inputs)
            self._leaves, self._states, self._interface = leaves_for(self._callee, request), (), Interface()
        return tuple(leaf.spec for leaf in self._leaves)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run the original, not the frozen copy; see `RunnableSource.run`."""
        with quiet():
            own = {leaf.name: leaf.value for leaf in self._inputs if leaf.value is not None}
            outputs = self._run(self._interface.to_source({**own, **inputs}))
        return self._interface.from_source(outputs)

    @contextlib.contextmanager
    def ready(self, inputs: Arrays) -> Iterator[Callable[[], Any]]:
        """The original alone; see `TimedSource.ready`. Variables that are inputs are as before when the block ends."""
        import tensorflow as tf

        own = {leaf.name: leaf.value for leaf in self._inputs if leaf.value is not None}
        given = self._interface.to_source({**own, **inputs})
        with quiet(), tf.device("/cpu:0"), _holding(self._states, given), _keeping(self._idle):
            values = {leaf.name: tf.convert_to_tensor(given[leaf.name]) for leaf in self._leaves}
            yield lambda: invoke(self._callee, self._leaves, values)

    def tap(self, inputs: Arrays, folder: Path) -> Tape | None:
        """Run the frozen copy and record it; see `TappedSource.tap`. None where it does not compute what `run` does."""
        from graphkit.capture import tf_taps

        expected = self.run(inputs)
        with quiet():
            frozen = self._last or self._freeze(self._asked)
            own = {leaf.name: leaf.value for leaf in self._inputs if leaf.value is not None}
            return tf_taps.record(frozen, {**own, **inputs}, folder, expected)

    @property
    def callee(self) -> Callee:
        """What it calls, for TensorFlow's own exporters."""
        return self._callee

    @property
    def _inputs(self) -> tuple[Leaf, ...]:
        """The arguments, and the variables that are inputs, with the values they have."""
        states = (Leaf(s.spec.name, (), s.spec, s.variable.numpy()) for s in self._states)
        return (*self._leaves, *states)

    def _check_options(self, request: CaptureRequest) -> None:
        refuse_others(request, self.options, f"a {self._callee.kind}")
        if request.state not in (None, "inputs"):
            raise BadOption(f"--state {request.state}: there is no such choice", remedy="--state inputs")

    def _freeze(self, request: CaptureRequest) -> Frozen:
        """Trace and freeze it; afterwards what `run` needs is known."""
        self._check_options(request)
        self._leaves, self._states, self._idle = leaves_for(self._callee, request), (), ()
        if self._frozen is not None:
            frozen = self._frozen(self._leaves)
        else:
            traced = trace(self._callee, self._leaves)
            names = [leaf.name for leaf in self._leaves]
            states = tf_state.assigned(traced.concrete, (*names, *(name for name, _ in traced.outputs)))
            if states and request.state != "inputs":
                frozen, self._idle = freeze_without(states, traced, self._leaves, self.name), states
            else:
                frozen, self._states = freeze(traced, self._leaves, states), states
            frozen = replace(
                frozen, layers=self._callee.layers, lines={} if self._callee.stock else lines_of(traced.concrete)
            )
        self._interface, self._last = Interface.of(frozen, request.layout)
        return self._last

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        import tensorflow as tf

        names = [leaf.name for leaf in self._leaves]
        with tf.device("/cpu:0"), _holding(self._states, inputs), _keeping(self._idle):
            values = {n: tf.convert_to_tensor(inputs[n]) for n in names}
            try:
                result = invoke(self._callee, self._leaves, values)
            except Exception as error:  # the user's code may raise anything
                raise rejection(error, self._leaves) from error
            named = named_outputs(result, self._callee.outputs, names)
            outputs = {name: tf.convert_to_tensor(value).numpy() for name, value in named}
            return outputs | {s.next_name: s.variable.numpy() for s in self._states}

    def _observe(self, request: CaptureRequest, sizes: Sizes) -> Iterator[tuple[Sizes, Shapes]]:
        """Shapes of the outputs at the captured sizes, and at two others.

        Needed only where neither TensorFlow nor ONNX can infer them: three runs of a MobileNet in eager mode take as
        long as its translation.

        Raises:
            ShapeMismatch: the model's own code rejects the sizes of the capture.
        """
        yield sizes, self._shapes(sizes, request.seed)
        for point in (1, 2):
            other = example_sizes(self._inputs, request.dims, point)
            with contextlib.suppress(GraphkitError):  # what the source cannot run is the validation's business
                yield other, self._shapes(other, request.seed + point)

    def _shapes(self, sizes: Sizes, seed: int) -> Shapes:
        outputs = self._run(values_for(self._inputs, sizes, seed))
        return {name: array.shape for name, array in self._interface.from_source(outputs).items()}

    def _origin(self, sizes: dict[str, int]) -> Origin:
        import keras
        import tensorflow as tf
        import tf2onnx

        return Origin(
            kind=self._callee.kind,
            name=self.name,
            sha256=self._sha256,
            versions={"tensorflow": tf.__version__, "keras": keras.__version__, "tf2onnx": tf2onnx.__version__},
            rungs=(Rung("tf2onnx"),),
            findings=(*self._findings, *self._defaults(), *self._left_out()),
            sizes={k: v for k, v in sizes.items() if k},
        )

    def _defaults(self) -> Iterator[Finding]:
        """Arguments that keep their default: right, but worth saying."""
        given = {leaf.param for leaf in self._leaves}
        for param in self._callee.params:
            if param.name not in given and isinstance(param.default, int | float):
                yield Finding(
                    "default",
                    f"argument `{param.name}` keeps its default {param.default!r}; it is no input of the graph",
                    remedy=f"--input {param.name}=VALUE makes it an input",
                )

    def _left_out(self) -> Iterator[Finding]:
        for state in self._idle:
            yield Finding(
                "state",
                f"`{state.spec.name}` is assigned while it runs, but no output depends on it and nothing of the inputs "
                "goes into it: the graph leaves it out",
                remedy="--state inputs makes it an input and an output",
            )


@contextlib.contextmanager
def _holding(states: tuple[State, ...], values: Mapping[str, Any]) -> Iterator[None]:
    """Variables with the values that are given, and with their own again afterwards."""
    with _keeping(states):
        for state in states:
            state.variable.assign(values[state.spec.name])
        yield


@contextlib.contextmanager
def _keeping(states: tuple[State, ...]) -> Iterator[None]:
    """Variables with their own values again afterwards."""
    own = [s.variable.numpy() for s in states]
    try:
        yield
    finally:
        for state, value in zip(states, own, strict=True):
            state.variable.assign(value)


def _true_outputs(graph: ir.Model, observed: list[tuple[Sizes, Shapes]]) -> None:
    """Replace what the translation declares about output shapes by what is true of them."""
    import onnx_ir as ir

    declared = {v.name or "": _dims(v) for v in graph.graph.outputs}
    shapes = output_shapes(declared, observed)
    for value in graph.graph.outputs:
        shape = shapes.get(value.name or "")
        if shape is not None:
            value.shape = ir.Shape(shape)


def _is_known(value: ir.Value) -> bool:
    dims = _dims(value)
    return dims is not None and None not in dims


def _dims(value: ir.Value) -> tuple[Any, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)
