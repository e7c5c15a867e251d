"""The options of `convert` and `build` that say how an engine is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graphkit.shapes import DimRange

C = TypeVar("C", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--backend", type=click.Choice(["rtx", "tensorrt"]), help="Engine builder.  [default: what is there]"),
    click.option("--cc", metavar="LIST", help="Compute capabilities: 8.6,8.9,12.0; all.  [default: portable]"),
    click.option("--tf32/--no-tf32", default=True, show_default=True, help="Let float32 layers use TF32."),
    click.option(
        "--profile", multiple=True, metavar="RANGES",
        help="An optimization profile: batch=1:4:8,n=2*batch; again for more; auto: found in the graph.",
    ),
    click.option("--cache/--no-cache", default=True, show_default=True, help="Take an engine that was built before."),
    click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Memory that kernels may take."),
    click.option("--level", type=click.IntRange(0, 5), metavar="N", help="TensorRT's optimisation level, 0 to 5."),
    click.option(
        "--timing-cache", type=click.Path(path_type=Path, dir_okay=False), metavar="F",
        help="TensorRT's measured kernels, read and written.",
    ),
    click.option("--version-compatible", is_flag=True, help="Later releases of TensorRT may run the engine."),
    click.option(
        "--hardware", type=click.Choice(["ampere-plus", "same-compute-capability"]), metavar="LEVEL",
        help="Other GPUs may run it: ampere-plus, same-compute-capability.",
    ),
    click.option("--refittable", is_flag=True, help="The engine takes new weights; see refit."),
    click.option("--strip-weights", is_flag=True, help="Leave out the weights that refit puts back."),
)  # fmt: skip

_DEFAULTS: Mapping[str, Any] = {"tf32": True, "cache": True, "profile": (), "version_compatible": False} | {
    "refittable": False,
    "strip_weights": False,
}
NAMES = (
    "backend", "cc", "tf32", "profile", "cache", "workspace", "level", "timing_cache", "version_compatible",
    "hardware", "refittable", "strip_weights",
)  # fmt: skip


def engine_options(command: C) -> C:
    """The options; `engine_values` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def default_of(name: str) -> Any:
    """What an option is when it is not given."""
    return _DEFAULTS.get(name)


def engine_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a request calls them.

    Raises:
        BadOption, BadDimRange: one is malformed.
    """
    from graphkit.engine.settings import TensorRTSettings

    profiles, find_ranges = _profiles(options["profile"])
    names = ("timing_cache", "version_compatible", "hardware", "workspace", "level", "refittable", "strip_weights")
    return {
        "backend": options["backend"],
        "compute_capabilities": capabilities(options["cc"]),
        "tf32": options["tf32"],
        "profiles": profiles,
        "find_ranges": find_ranges,
        "settings": TensorRTSettings(**{name: options[name] for name in names}),
        "cache": options["cache"],
    }


def _profiles(texts: tuple[str, ...]) -> tuple[tuple[tuple[DimRange, ...], ...], bool]:
    from graphkit.engine.profile_text import parse_profile
    from graphkit.errors import BadOption

    profiles = tuple(parse_profile(text) for text in texts if text != "auto")
    if len(set(profiles)) != len(profiles):
        raise BadOption("a --profile is given twice", remedy="give each one once")
    return profiles, "auto" in texts


def capabilities(text: str | None) -> tuple[str, ...]:
    """`8.6,8.9`, or `all`. Raises: `BadOption`: it is neither."""
    from graphkit.errors import BadOption

    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    numbers = all(major.isdecimal() and minor.isdecimal() for major, _, minor in (p.partition(".") for p in parts))
    if parts != ("all",) and not numbers:
        raise BadOption(f"--cc {text!r} is not a list of compute capabilities", remedy="--cc 8.6,8.9,12.0, or --cc all")
    return parts
