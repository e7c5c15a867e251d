"""What several commands do alike: options that name something once, and a standard output that is the answer alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graphkit.request import QuantizeRequest

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

_SOURCE_OPTIONS = (
    click.option("--signature", metavar="NAME", help="Which signature of a SavedModel or TFLite file."),
    click.option("--output-name", multiple=True, metavar="T", help="An output of a GraphDef: scores, split:1."),
    click.option("--state", type=click.Choice(["inputs"]), help="TensorFlow variables as inputs and outputs."),
    click.option("--layout", multiple=True, metavar="nchw[:X]", help="TensorFlow's images as NCHW; X: that one only."),
)


def source_options(command: C) -> C:
    """The options that only some sources of TensorFlow's know."""
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


def source_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a `CaptureRequest` calls the options of a command that concern how a source is opened."""
    return {
        "submodule": options["submodule"],
        "architecture": options["model"],
        "trust": options["trust"],
        "signature": options["signature"],
        "state": options["state"],
        "layout": options["layout"],
        "outputs": options["output_name"],
    }


@contextlib.contextmanager
def errors_in_json(as_json: bool, **answer: str) -> Iterator[None]:
    """With `as_json`, an error is printed to stdout as `answer` with the error in it, and raised then: stdout has an
    answer even after a bug."""
    try:
        yield
    except Exception as exception:
        import json

        from .failure import as_error

        error = as_error(exception)
        if as_json:
            click.echo(json.dumps({**answer, "error": error.to_json()}, indent=2))
        raise error from exception


def given_inputs(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a request calls `--shape`, `--dim` and `--input`. Raises: `BadOption`: one is wrong, or given twice."""
    from graphkit import shapes

    return {
        "shapes": each_once("--shape", options["shape"], shapes.parse_shape, lambda s: s.name),
        "dims": each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol),
        "samples": each_once("--input", options["input"], shapes.parse_sample, lambda s: s.name),
    }


_PRECISION_OPTIONS = (
    click.option("--data", metavar="D", help="Calibration data: a folder, FILE.npz, or package.module:function."),
    click.option(
        "--method", type=click.Choice(["minmax", "entropy", "percentile"]), default="minmax", show_default=True,
        help="int8, fp8: how scales follow from the data.",
    ),
    click.option("--uncalibrated", is_flag=True, help="int8, fp8: guess the scales, without data."),
    click.option("--keep", metavar="LIST", help="Nodes that stay in float32."),
    click.option("--block", type=click.IntRange(min=1), metavar="N", help="int4: weights to a scale.  [default: 32]"),
    click.option("--io-types", is_flag=True, help="fp16, bf16: inputs and outputs too."),
    click.option("--max-drop", type=float, metavar="X", help="Error allowed; what has to stay in float32 is searched."),
    click.option(
        "--metric", type=click.Choice(["cosine", "l2"]), default="cosine", show_default=True,
        help="Error of --max-drop: 1 - cosine, or relative.",
    ),
)  # fmt: skip


def precision_options(*, required: bool) -> Callable[[C], C]:
    """The options of a lower precision."""
    precision = click.option(
        "--precision", type=click.Choice(["fp16", "bf16", "int8", "fp8", "int4"]), required=required,
        help="Precision of the layers that multiply.",
    )  # fmt: skip

    def made(command: C) -> C:
        for option in reversed((precision, *_PRECISION_OPTIONS)):
            command = option(command)
        return command

    return made


def precision_request(options: Mapping[str, Any]) -> QuantizeRequest | None:
    """What the options of a lower precision ask for; None where they ask for none.

    Raises:
        UsageError: one of them is given without `--precision`.
    """
    from graphkit.request import QuantizeRequest

    if options["precision"] is None:
        given = ("data", "uncalibrated", "keep", "block", "io_types", "max_drop")
        idle = next((name for name in given if options[name]), None)
        if idle is not None:
            raise click.UsageError(f"--{idle.replace('_', '-')} says nothing without --precision")
        return None
    keep = (name.strip() for name in (options["keep"] or "").split(","))
    return QuantizeRequest(
        precision=options["precision"],
        data=options["data"],
        method=options["method"],
        uncalibrated=options["uncalibrated"],
        keep=frozenset(name for name in keep if name),
        block=options["block"],
        io_types=options["io_types"],
        max_drop=options["max_drop"],
        metric=options["metric"],
    )


def each_once(option: str, texts: tuple[str, ...], parse: Callable[[str], T], key: Callable[[T], str]) -> tuple[T, ...]:
    from graphkit.errors import BadOption

    found: dict[str, T] = {}
    for text in texts:
        value = parse(text)
        if key(value) in found:
            raise BadOption(f"{option} is given twice for `{key(value)}`", remedy=f"one {option} for each name")
        found[key(value)] = value
    return tuple(found.values())


def frozen_values(texts: tuple[str, ...]) -> dict[str, Any]:
    """`sr=16000`, `mask=mask.npy` as values by name."""
    from graphkit.shapes import parse_sample

    return {s.name: s.value for s in each_once("a value", texts, parse_sample, lambda s: s.name)}


@contextlib.contextmanager
def libraries_kept_off_stdout(verbose: int) -> Iterator[None]:
    """Send what libraries and the model's own code print to stderr: stdout is for the answer.

    torch.onnx prints from Python, TensorRT and the children from C: hence both the object and the descriptor.
    """
    import warnings

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if not verbose:
            warnings.simplefilter("ignore")  # what matters to the user comes as a Finding
        with contextlib.suppress(OSError):  # a process without stdout or stderr has nothing to mix up
            stack.enter_context(_descriptor_to(1, 2))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


@contextlib.contextmanager
def _descriptor_to(descriptor: int, target: int) -> Iterator[None]:
    sys.stdout.flush()
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
