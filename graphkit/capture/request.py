"""What a user asks of a capture, and what a source can do. Both cross process boundaries as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphkit.errors import BadDimRange, UnknownName
from graphkit.shapes import DimRange, Sample, TensorSpec, symbols_of

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

VIA = ("export", "script", "trace")


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """How to capture a source.

    Attributes:
        shapes: Shape and dtype of inputs; symbols are dynamic dimensions.
        dims: Ranges of the symbols.
        samples: Values for inputs, from the command line: `.npy` files and Python scalars.
        opset: Opset of the default domain; None for the exporter's own choice.
        via: One way of capturing, instead of the ladder: `export`, `script` or `trace`.
        submodule: Path of the part to convert: `decoder.layers`.
        architecture: `package.module:callable` that builds the module a weights file belongs to.
        trust: Whether code named by the file may run.
        seed: Seed of the sample values.
        signature: Which signature of a SavedModel.
        state: `inputs` turns every variable that a TensorFlow function assigns into an input and an output;
            None refuses such a function.
        layout: Names of inputs and outputs to hand over as NCHW where TensorFlow has NHWC: `nchw` for all of rank 4,
            `nchw:name` for one.
        outputs: Tensors or nodes of a GraphDef to take as outputs: `scores`, `split:1`.
    """

    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    opset: int | None = None
    via: str | None = None
    submodule: str | None = None
    architecture: str | None = None
    trust: bool = False
    seed: int = 0
    signature: str | None = None
    state: str | None = None
    layout: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "shapes": [[s.name, s.dtype, None if s.shape is None else list(s.shape)] for s in self.shapes],
            "dims": [[d.symbol, d.min, d.opt, d.max] for d in self.dims],
            "samples": [
                [s.name, str(s.value.resolve()), True] if isinstance(s.value, Path) else [s.name, s.value, False]
                for s in self.samples
            ],
            "opset": self.opset,
            "via": self.via,
            "submodule": self.submodule,
            "architecture": self.architecture,
            "trust": self.trust,
            "seed": self.seed,
            "signature": self.signature,
            "state": self.state,
            "layout": list(self.layout),
            "outputs": list(self.outputs),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CaptureRequest:
        return cls(
            shapes=tuple(TensorSpec(n, t, None if s is None else tuple(s)) for n, t, s in data["shapes"]),
            dims=tuple(DimRange(*d) for d in data["dims"]),
            samples=tuple(Sample(n, Path(v) if is_path else v) for n, v, is_path in data["samples"]),
            opset=data["opset"],
            via=data["via"],
            submodule=data["submodule"],
            architecture=data["architecture"],
            trust=data["trust"],
            seed=data["seed"],
            signature=data["signature"],
            state=data["state"],
            layout=tuple(data["layout"]),
            outputs=tuple(data["outputs"]),
        )


class Source(Protocol):
    """Something that can be captured as a `Model`."""

    @property
    def name(self) -> str:
        """What to call it: a file name or `package.module:callable`."""

    @property
    def options(self) -> frozenset[str]:
        """Which of `capture.options.FLAGS` it knows; it refuses the others."""

    def capture(self, request: CaptureRequest) -> Model:
        """Capture it.

        Raises:
            Refused: it cannot be captured faithfully. `BadRequest`: the request or the file is bad.
        """


@runtime_checkable
class RunnableSource(Source, Protocol):
    """A source that its own framework can run, for comparison with the captured model. (An ONNX file is none: it is
    its own reference.)"""

    @property
    def label(self) -> str:
        """What runs it: `torch 2.13.0 (cpu)`. Known after `capture` or `prepare`."""

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Make it ready for `run` without capturing it; returns its inputs.

        Raises:
            BadRequest: as `capture`.
        """

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run it on inputs named as in the captured model; returns outputs named likewise."""


@runtime_checkable
class TimedSource(RunnableSource, Protocol):
    """A source whose own work can be timed apart from what `run` does around it."""

    def ready(self, inputs: Arrays) -> AbstractContextManager[Callable[[], Any]]:
        """A function that runs the model on inputs that are already its framework's, and converts no output."""


def check_dims(dims: tuple[DimRange, ...], specs: tuple[TensorSpec, ...]) -> None:
    """Refuse a range for a symbol that stands in no shape, or two ranges for one.

    Raises:
        UnknownName, BadDimRange
    """
    symbols = symbols_of(specs)
    for position, each in enumerate(dims):
        if each.symbol not in symbols:
            known = f"the shapes have {', '.join(symbols)}" if symbols else "no shape has a symbol"
            example = specs[0].name if specs else "x"
            raise UnknownName(
                f"--dim {each}: no input has a dimension called `{each.symbol}`; {known}",
                remedy=f"name the dimension in a shape: --shape {example}={each.symbol},...",
            )
        if any(other.symbol == each.symbol for other in dims[:position]):
            raise BadDimRange(f"dimension `{each.symbol}` is given two ranges", remedy="give --dim once per symbol")
