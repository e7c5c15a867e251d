"""`--until ort`: ONNX Runtime cannot load the model, or cannot run it. `--until parity`: it computes something else."""

from __future__ import annotations

from pathlib import Path

from graphkit.errors import BadSample, GraphkitError
from graphkit.parity.compare import compare_outputs
from graphkit.parity.runners import OrtRunner
from graphkit.parity.verdict import OutputComparison
from graphkit.shrink.failure import Failure, of_error
from graphkit.shrink.trial import Trial, fitting, input_names

RANDOM = "random"
"""The reason of a difference that the reference has to itself."""


class OrtCheck:
    """ONNX Runtime with all its optimisations, in a child: a crash there is a failure like any other.

    Args:
        timeout: Seconds that one load or run may take.
    """

    label = "ONNX Runtime loads and runs it"
    each_sample = True
    needs_values = False

    def __init__(self, timeout: float | None = None) -> None:
        self._timeout = timeout

    def run(self, trial: Trial, sample: int | None) -> Failure | None:
        """See `Check.run`; without values the model is only loaded."""
        try:
            with OrtRunner(trial.path, optimize=True, timeout=self._timeout, as_is=True) as runner:
                if sample is None:
                    runner.load()
                else:
                    runner.run(trial.samples[sample])
        except BadSample as error:
            if "refuses the inputs" not in error.message:  # some of its errors inside a node look like this one
                raise
            return of_error(error, trial.names)
        except GraphkitError as error:
            return of_error(error, trial.names)
        return None


class ParityCheck:
    """The outputs of a model against those of another, or of itself without ONNX Runtime's optimisations.

    Args:
        against: Whether there is another model.
        timeout: Seconds that one load or run may take.
    """

    each_sample = True
    needs_values = True

    def __init__(self, *, against: bool = False, timeout: float | None = None) -> None:
        self.label = (
            "it gives what the other model gives, in ONNX Runtime with its optimisations off"
            if against
            else "ONNX Runtime gives with its optimisations what it gives without"
        )
        self._timeout = timeout

    def run(self, trial: Trial, sample: int | None) -> Failure | None:
        """See `Check.run`.

        Raises:
            GraphkitError: the reference does not run.
        """
        assert sample is not None
        inputs = trial.samples[sample]
        reference = self._runner(trial, reference=True)
        names = input_names(trial.other or trial.model)
        with reference, self._runner(trial, reference=False) as candidate:
            expected = reference.run(fitting(inputs, names))
            try:
                found = candidate.run(inputs)
            except GraphkitError as error:
                failure = of_error(error, trial.names)
                return Failure(tuple(f"does not run: {r}" for r in failure.reasons), failure.text)
            compared = compare_outputs(expected, found)
            bad = [o for o in compared if o.status == "fail"]
            if not bad:
                return None
            again = compare_outputs(expected, reference.run(fitting(inputs, names)))
        if any(o.status == "fail" for o in again):
            return Failure((RANDOM,), "the reference gives something else each time it runs")
        text = "\n".join(f"`{o.output}`: {o.reason}" for o in bad)
        return Failure(tuple(dict.fromkeys(map(_kind, bad))), text, {o.output: (o.atol, o.rtol) for o in compared})

    def _runner(self, trial: Trial, *, reference: bool) -> OrtRunner:
        path: Path = trial.other_path if reference and trial.other_path is not None else trial.path
        return OrtRunner(path, optimize=not reference and trial.other_path is None, timeout=self._timeout)


def _kind(output: OutputComparison) -> str:
    reason = output.reason or ""
    for sign, kind in (("shape ", "shapes differ"), ("dtype ", "dtypes differ"), ("no output", "an output is missing")):
        if sign in reason:
            return kind
    return "NaN or infinity differs" if "NaN" in reason else "values differ"
