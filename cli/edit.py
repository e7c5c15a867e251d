"""`graphkit edit`: changes that are asked for by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from graphkit.model import Model

Edit = Callable[..., "Model | tuple[Model, Model]"]

SCHEMA = "graphkit.edit/1"
_MODELS = {"model", "first", "second"}
_OUTPUT = click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")


@click.group()
def edit() -> None:
    """Change what an ONNX model takes and gives, take parts of it, or join two.

    Each command writes a new file. What it cannot do it refuses; nothing is guessed.
    """


def _command(name: str, short: str | None = None) -> Callable[[Edit], click.Command]:
    """A command of the models that a function makes of its arguments: it writes them, and says so."""

    def made(function: Edit) -> click.Command:
        @functools.wraps(function)
        def run(output: Path, as_json: bool, verbose: int, **given: Any) -> None:
            click.get_current_context().obj.verbose = verbose
            from .shared import errors_in_json

            with errors_in_json(as_json, schema=SCHEMA, status="error"):
                written = _written(function, given, output)
            said = [f"wrote {path}" for _, paths in written for path in paths]
            click.echo(_json(written) if as_json else "\n".join(said))

        command = edit.command(name, short_help=short)(_OUTPUT(run))
        command.params += [  # the last ones, as in every command
            click.Option(["--json", "as_json"], is_flag=True, help=f"Print the answer as JSON (schema {SCHEMA})."),
            click.Option(["-v", "--verbose"], count=True, help="-vv: tracebacks."),
        ]
        return command

    return made


def _written(function: Edit, given: dict[str, Any], output: Path) -> list[tuple[Model, list[str]]]:
    """Models, and the files of each. One is `OUT.onnx`; two are `OUT.1.onnx` and `OUT.2.onnx`."""
    from graphkit import atomic

    made = function(**given)
    both = [output.with_suffix(f".{number}{output.suffix or '.onnx'}") for number in (1, 2)]
    places = dict(zip(both, made, strict=True)) if isinstance(made, tuple) else {output: made}
    for name in _MODELS & given.keys():
        atomic.keep(Path(given[name]), *places)
    return [(model, [str(path) for path in model.save(place)]) for place, model in places.items()]


def _json(written: Sequence[tuple[Model, list[str]]]) -> str:
    import json

    models = [{"files": files, "signature": model.signature.to_json()} for model, files in written]
    return json.dumps({"schema": SCHEMA, "status": "ok", "models": models}, indent=2)


@_command("freeze")
@click.argument("model")
@click.argument("values", nargs=-1, required=True, metavar="X=VALUE...")
def _freeze(model: str, values: tuple[str, ...]) -> Model:
    """Make inputs constants: sr=16000, mask=mask.npy. `optimize` then folds what depends on them."""
    from graphkit.rewrite.surgery import interface

    from .shared import frozen_values

    return interface.freeze(_load(model), frozen_values(values))


@_command("set-dim")
@click.argument("model")
@click.argument("sizes", nargs=-1, required=True, metavar="D=SIZE...")
def _set_dim(model: str, sizes: tuple[str, ...]) -> Model:
    """Fix dimensions, batch=8, or give them another name, s77=seq."""
    from graphkit.rewrite.surgery import interface

    given = {d: int(s) if s.lstrip("-").isdigit() else s for d, s in _pairs(sizes, "D=SIZE").items()}
    return interface.set_dims(_load(model), given)


@_command("rename")
@click.argument("model")
@click.argument("names", nargs=-1, required=True, metavar="OLD=NEW...")
def _rename(model: str, names: tuple[str, ...]) -> Model:
    """Give tensors other names."""
    from graphkit.rewrite.surgery import interface

    return interface.rename(_load(model), _pairs(names, "OLD=NEW"))


@_command("extract")
@click.argument("model")
@click.option("--inputs", metavar="LIST", help="Tensors at which the part begins.  [default: the model's inputs]")
@click.option("--outputs", metavar="LIST", help="Tensors at which it ends.  [default: the model's outputs]")
def _extract(model: str, inputs: str | None, outputs: str | None) -> Model:
    """Write the part of a model between tensors."""
    from graphkit.rewrite.surgery import parts

    if not _listed(inputs) and not _listed(outputs):
        raise click.UsageError("give --inputs, --outputs, or both")
    return parts.extract(_load(model), _listed(inputs), _listed(outputs))


@_command("cut")
@click.argument("model")
@click.option("--after", required=True, metavar="LIST", help="Tensors or nodes at which the model ends.")
def _cut(model: str, after: str) -> Model:
    """Let a model end at inner tensors."""
    from graphkit.rewrite.surgery import parts

    return parts.cut(_load(model), _listed(after))


@_command("mark")
@click.argument("model")
@click.argument("tensors", nargs=-1, required=True, metavar="TENSOR|NODE...")
def _mark(model: str, tensors: tuple[str, ...]) -> Model:
    """Let a model give inner tensors too."""
    from graphkit.rewrite.surgery import parts

    return parts.mark(_load(model), tensors)


@_command("split", "Write the two parts of a model before and after tensors.")
@click.argument("model")
@click.option("--at", required=True, metavar="LIST", help="Tensors that the first part gives and the second takes.")
def _split(model: str, at: str) -> tuple[Model, Model]:
    """Write the two parts of a model before and after tensors, as OUT.1.onnx and OUT.2.onnx for -o OUT.onnx."""
    from graphkit.rewrite.surgery import parts

    return parts.split(_load(model), _listed(at))


@_command("merge")
@click.argument("first")
@click.argument("second")
@click.option("--map", "connect", multiple=True, required=True, metavar="OUT=IN", help="What feeds what.")
def _merge(first: str, second: str, connect: tuple[str, ...]) -> Model:
    """Write one model of two: outputs of FIRST feed inputs of SECOND."""
    from graphkit.rewrite.surgery import merging

    return merging.merge(_load(first), _load(second), _pairs(connect, "OUT=IN"))


@_command("fp16-io", "Let a model take and give float16 instead of float32.")
@click.argument("model")
@click.option("--only", metavar="LIST", help="These inputs and outputs.  [default: all of float32]")
def _half_io(model: str, only: str | None) -> Model:
    """Let a model take and give float16 where it took and gave float32."""
    from graphkit.rewrite.surgery import interface

    return interface.half_io(_load(model), _listed(only))


@_command("layout", "Let a model take or give a tensor with its axes turned.")
@click.argument("model")
@click.argument("name", metavar="X")
@click.argument("order", metavar="ORDER")
def _layout(model: str, name: str, order: str) -> Model:
    """Let a model take or give a tensor with its axes in another order: 0,2,3,1 turns NCHW into NHWC."""
    from graphkit.rewrite.surgery import interface

    if not all(part.strip().isdigit() for part in order.split(",")):
        raise click.UsageError(f"{order!r} is no order of axes: 0,2,3,1")
    return interface.layout(_load(model), name, tuple(int(part) for part in order.split(",")))


@_command("normalise")
@click.argument("model")
@click.argument("name", metavar="X")
@click.option("--mean", required=True, metavar="LIST", help="One number, or one for each channel.")
@click.option("--std", required=True, metavar="LIST", help="One number, or one for each channel.")
@click.option(
    "--scale", metavar="R", default=1.0, show_default=True, help="Factor before; 0.00392156862745098 (1/255) for bytes."
)
@click.option("--axis", metavar="N", default=1, show_default=True, help="The channels' axis.")
@click.option("--dtype", metavar="T", help="What the model takes then: uint8.  [default: as before]")
def _normalise(model: str, name: str, **options: Any) -> Model:
    """Put (x * scale - mean) / std before an input."""
    from graphkit.rewrite.surgery import processing

    mean, std = _floats(options.pop("mean")), _floats(options.pop("std"))
    return processing.normalise(_load(model), name, mean, std, **options)


@_command("resize")
@click.argument("model")
@click.argument("name", metavar="X")
@click.option(
    "--mode", type=click.Choice(["linear", "nearest"]), default="linear", show_default=True, help="Interpolation."
)
def _resize(model: str, name: str, mode: str) -> Model:
    """Let an input of fixed height and width take images of any size."""
    from graphkit.rewrite.surgery import processing

    return processing.resize(_load(model), name, mode)


@_command("softmax")
@click.argument("model")
@click.argument("name", metavar="Y")
@click.option("--axis", metavar="N", default=-1, show_default=True, help="The axis.")
def _softmax(model: str, name: str, axis: int) -> Model:
    """Turn an output into probabilities."""
    from graphkit.rewrite.surgery import processing

    return processing.softmax(_load(model), name, axis)


@_command("top-k")
@click.argument("model")
@click.argument("name", metavar="Y")
@click.argument("count", type=int, metavar="K")
@click.option("--axis", metavar="N", default=-1, show_default=True, help="The axis.")
def _top_k(model: str, name: str, count: int, axis: int) -> Model:
    """Give the K largest values of an output, and Y_indices."""
    from graphkit.rewrite.surgery import processing

    return processing.best(_load(model), name, count, axis)


@_command("nms", "Add non-maximum suppression of boxes.")
@click.argument("model")
@click.option("--boxes", required=True, metavar="Y", help="Output of shape [batch, boxes, 4].")
@click.option("--scores", required=True, metavar="Y", help="Output of shape [batch, classes, boxes].")
@click.option("--iou", metavar="R", default=0.5, show_default=True, help="Overlap above which the lesser box goes.")
@click.option("--score", metavar="R", default=0.25, show_default=True, help="Least score.")
@click.option(
    "--most", type=click.IntRange(min=1), metavar="N", default=100, show_default=True, help="Boxes for class and image."
)
@click.option("--centre", is_flag=True, help="Boxes are x, y of the centre, width, height; else y1, x1, y2, x2.")
def _nms(model: str, boxes: str, scores: str, **options: Any) -> Model:
    """Add non-maximum suppression: the output `selected` has rows of batch, class, box."""
    from graphkit.rewrite.surgery import processing

    return processing.suppress(_load(model), boxes, scores, **options)


def _load(path: str) -> Model:
    from graphkit.capture.onnx_file import read

    return read(path)


def _pairs(texts: tuple[str, ...], form: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.UsageError(f"{text!r} is not {form}")
        if name in found:
            raise click.UsageError(f"{name!r} is given twice")
        found[name] = value
    return found


def _listed(text: str | None) -> tuple[str, ...]:
    """Names in a list; () where none was given."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()


def _floats(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{text!r} is no list of numbers") from None
