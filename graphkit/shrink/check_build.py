"""`--until build`: TensorRT or TensorRT-RTX refuses the model, cannot build it, or crashes over it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from graphkit.engine import builder
from graphkit.engine.builder import BuildRequest
from graphkit.errors import BadRequest, GraphkitError, Lacking
from graphkit.shrink.failure import Failure, of_error
from graphkit.shrink.trial import Trial


class BuildCheck:
    """Builds an engine in a child process and throws it away.

    Args:
        backend: `rtx` or `tensorrt`; None for what is there.
        compute_capabilities: As of `BuildRequest`.

    Raises:
        UnknownTarget, ExtraMissing, GpuRequired: nothing here can build.
    """

    each_sample = False
    needs_values = False

    def __init__(self, backend: str | None = None, compute_capabilities: tuple[str, ...] = ()) -> None:
        self._builder = builder.choose(backend)
        self.compute_capabilities = compute_capabilities
        self.backend = self._builder.name
        self.label = f"{'TensorRT-RTX' if self.backend == 'rtx' else 'TensorRT'} builds it"

    def run(self, trial: Trial, sample: int | None) -> Failure | None:
        """See `Check.run`.

        Raises:
            BadRequest, Lacking: the request lacks a range, or this machine a library.
        """
        del sample
        request = BuildRequest(trial.model, compute_capabilities=self.compute_capabilities, file=trial.path)
        try:
            with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
                self._builder.build(request, Path(folder, "model.engine"), durable=False)
        except (BadRequest, Lacking):
            raise
        except GraphkitError as error:
            return of_error(error, trial.names)
        return None
