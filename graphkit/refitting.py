"""`refit`: new weights for an engine, proved by parity with the model that they come from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit import atomic
from graphkit.comparison import ValidateRequest, error_of, validate
from graphkit.engine import refit as engines
from graphkit.engine import sidecar
from graphkit.model import load

if TYPE_CHECKING:
    from graphkit.parity.verdict import ParityReport


@dataclass(frozen=True, slots=True)
class Refitted:
    """An engine with new weights.

    Attributes:
        files: The engine and its description.
        parity: The engine against the ONNX file that the weights came from.
    """

    files: tuple[Path, Path]
    parity: ParityReport


def refit(engine: Path | str, weights: Path | str, output: Path | str, *, seed: int = 0) -> Refitted:
    """Put the weights of an ONNX file into a refittable engine; it appears once it computes what that file does.

    Args:
        engine: That `convert` or `build` wrote with `--refittable` or `--strip-weights`, its `.json` beside it.
        weights: ONNX file of the same structure, made from the new checkpoint by the same command.
        seed: Of the inputs that are compared on.

    Raises:
        ParityFailed: it does not; nothing was written.
        GraphkitError: as `engine.refit.refit`.
    """
    engine, weights, output = Path(engine), Path(weights), Path(output)
    atomic.check_writable(output)
    model = load(weights)
    with tempfile.TemporaryDirectory(prefix=".graphkit-", dir=output.parent) as folder:
        made = engines.refit(engine, model, Path(folder, output.name))
        report = validate(weights, [made], ValidateRequest(seed=seed))
        error = error_of(report)
        if error is not None:
            raise error
        described = sidecar.path_for(output)
        for new, place in ((made, output), (sidecar.path_for(made), described)):
            new.replace(place)
    return Refitted((output, described), report)
