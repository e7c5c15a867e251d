"""`graphkit edit`: changes that are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graphkit.model import Model

C = TypeVar("C", bound=Callable[..., Any])

_OUTPUT = click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
_VERBOSE = click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")


@click.group()
def edit() -> None:
    """Change what an ONNX model takes and gives, take parts of it, or join two.

    Each command writes a new file. What it cannot do it refuses; nothing is guessed.
    """


def _command(name: str) -> Callable[[C], C]:
    def made(function: C) -> C:
        command = click.pass_context(function)
        return edit.command(name)(_OUTPUT(_VERBOSE(command)))  # type: ignore[return-value]

    return made


@_command("freeze")
@click.argument("model")
@click.argument("values", nargs=-1, required=True, metavar="X=VALUE...")
def _freeze(ctx: click.Context, /, model: str, values: tuple[str, ...], output: Path, verbose: int) -> None:
    """Make inputs constants: sr=16000, mask=mask.npy. `optimize` then folds what depends on them."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import interface

    from .shared import frozen_values

    _write(interface.freeze(_load(model), frozen_values(values)), output)


@_command("set-dim")
@click.argument("model")
@click.argument("sizes", nargs=-1, required=True, metavar="D=SIZE...")
def _set_dim(ctx: click.Context, /, model: str, sizes: tuple[str, ...], output: Path, verbose: int) -> None:
    """Fix dimensions, batch=8, or give them another name, s77=seq."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import interface

    given = {d: int(s) if s.lstrip("-").isdigit() else s for d, s in _pairs(sizes, "D=SIZE").items()}
    _write(interface.set_dims(_load(model), given), output)


@_command("rename")
@click.argument("model")
@click.argument("names", nargs=-1, required=True, metavar="OLD=NEW...")
def _rename(ctx: click.Context, /, model: str, names: tuple[str, ...], output: Path, verbose: int) -> None:
    """Give tensors other names."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import interface

    _write(interface.rename(_load(model), _pairs(names, "OLD=NEW")), output)


@_command("extract")
@click.argument("model")
@click.option("--inputs", metavar="LIST", help="Tensors at which the part begins.  [default: the model's inputs]")
@click.option("--outputs", metavar="LIST", help="Tensors at which it ends.  [default: the model's outputs]")
def _extract(
    ctx: click.Context, /, model: str, inputs: str | None, outputs: str | None, output: Path, verbose: int
) -> None:
    """Write the part of a model between tensors."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import parts

    if not _listed(inputs) and not _listed(outputs):
        raise click.UsageError("give --inputs, --outputs, or both")
    _write(parts.extract(_load(model), _listed(inputs), _listed(outputs)), output)


@_command("cut")
@click.argument("model")
@click.option("--after", required=True, metavar="LIST", help="Tensors or nodes at which the model ends.")
def _cut(ctx: click.Context, /, model: str, after: str, output: Path, verbose: int) -> None:
    """Let a model end at inner tensors."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import parts

    _write(parts.cut(_load(model), _listed(after)), output)


@_command("mark")
@click.argument("model")
@click.argument("tensors", nargs=-1, required=True, metavar="TENSOR|NODE...")
def _mark(ctx: click.Context, /, model: str, tensors: tuple[str, ...], output: Path, verbose: int) -> None:
    """Let a model give inner tensors too."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import parts

    _write(parts.mark(_load(model), tensors), output)


@_command("split")
@click.argument("model")
@click.option("--at", required=True, metavar="LIST", help="Tensors that the first part gives and the second takes.")
def _split(ctx: click.Context, /, model: str, at: str, output: Path, verbose: int) -> None:
    """Write the two parts of a model before and after tensors, as OUT.1.onnx and OUT.2.onnx for -o OUT.onnx."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import parts

    for number, part in enumerate(parts.split(_load(model), _listed(at)), 1):
        _write(part, output.with_suffix(f".{number}{output.suffix or '.onnx'}"))


@_command("merge")
@click.argument("first")
@click.argument("second")
@click.option("--map", "connect", multiple=True, required=True, metavar="OUT=IN", help="What feeds what.")
def _merge(
    ctx: click.Context, /, first: str, second: str, connect: tuple[str, ...], output: Path, verbose: int
) -> None:
    """Write one model of two: outputs of FIRST feed inputs of SECOND."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import merging

    _write(merging.merge(_load(first), _load(second), _pairs(connect, "OUT=IN")), output)


@_command("fp16-io")
@click.argument("model")
@click.option("--only", metavar="LIST", help="These inputs and outputs.  [default: all of float32]")
def _half_io(ctx: click.Context, /, model: str, only: str | None, output: Path, verbose: int) -> None:
    """Let a model take and give float16 where it took and gave float32."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import interface

    _write(interface.half_io(_load(model), _listed(only)), output)


@_command("layout")
@click.argument("model")
@click.argument("name", metavar="X")
@click.argument("order", metavar="ORDER")
def _layout(ctx: click.Context, /, model: str, name: str, order: str, output: Path, verbose: int) -> None:
    """Let a model take or give a tensor with its axes in another order: 0,2,3,1 turns NCHW into NHWC."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import interface

    if not all(part.strip().isdigit() for part in order.split(",")):
        raise click.UsageError(f"{order!r} is no order of axes: 0,2,3,1")
    _write(interface.layout(_load(model), name, tuple(int(part) for part in order.split(","))), output)


@_command("normalise")
@click.argument("model")
@click.argument("name", metavar="X")
@click.option("--mean", required=True, metavar="LIST", help="One number, or one for each channel.")
@click.option("--std", required=True, metavar="LIST", help="One number, or one for each channel.")
@click.option("--scale", default=1.0, show_default=True, help="Factor before; 0.00392156862745098 (1/255) for bytes.")
@click.option("--axis", default=1, show_default=True, help="The channels' axis.")
@click.option("--dtype", metavar="T", help="What the model takes then: uint8.  [default: as before]")
def _normalise(ctx: click.Context, /, model: str, name: str, **options: Any) -> None:
    """Put (x * scale - mean) / std before an input."""
    ctx.obj.verbose = options["verbose"]
    from graphkit.rewrite.surgery import processing

    made = processing.normalise(
        _load(model), name, _floats(options["mean"]), _floats(options["std"]),
        scale=options["scale"], axis=options["axis"], dtype=options["dtype"],
    )  # fmt: skip
    _write(made, options["output"])


@_command("resize")
@click.argument("model")
@click.argument("name", metavar="X")
@click.option("--mode", type=click.Choice(["linear", "nearest"]), default="linear", show_default=True)
def _resize(ctx: click.Context, /, model: str, name: str, mode: str, output: Path, verbose: int) -> None:
    """Let an input of fixed height and width take images of any size."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import processing

    _write(processing.resize(_load(model), name, mode), output)


@_command("softmax")
@click.argument("model")
@click.argument("name", metavar="Y")
@click.option("--axis", default=-1, show_default=True)
def _softmax(ctx: click.Context, /, model: str, name: str, axis: int, output: Path, verbose: int) -> None:
    """Turn an output into probabilities."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import processing

    _write(processing.softmax(_load(model), name, axis), output)


@_command("top-k")
@click.argument("model")
@click.argument("name", metavar="Y")
@click.argument("count", type=int, metavar="K")
@click.option("--axis", default=-1, show_default=True)
def _top_k(ctx: click.Context, /, model: str, name: str, count: int, axis: int, output: Path, verbose: int) -> None:
    """Give the K largest values of an output, and Y_indices."""
    ctx.obj.verbose = verbose
    from graphkit.rewrite.surgery import processing

    _write(processing.best(_load(model), name, count, axis), output)


@_command("nms")
@click.argument("model")
@click.option("--boxes", required=True, metavar="Y", help="Output of shape [batch, boxes, 4].")
@click.option("--scores", required=True, metavar="Y", help="Output of shape [batch, classes, boxes].")
@click.option("--iou", default=0.5, show_default=True, help="Overlap above which the lesser box goes.")
@click.option("--score", default=0.25, show_default=True, help="Least score.")
@click.option("--most", type=click.IntRange(min=1), default=100, show_default=True, help="Boxes for class and image.")
@click.option("--centre", is_flag=True, help="Boxes are x, y of the centre, width, height; else y1, x1, y2, x2.")
def _nms(ctx: click.Context, /, model: str, boxes: str, scores: str, **options: Any) -> None:
    """Add non-maximum suppression: the output `selected` has rows of batch, class, box."""
    ctx.obj.verbose = options.pop("verbose")
    from graphkit.rewrite.surgery import processing

    output = options.pop("output")
    _write(processing.suppress(_load(model), boxes, scores, **options), output)


def _load(path: str) -> Model:
    from graphkit.capture.onnx_file import read

    return read(path)


def _write(model: Model, output: Path) -> None:
    for path in model.save(output):
        click.echo(f"wrote {path}")


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
