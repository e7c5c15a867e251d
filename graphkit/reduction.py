"""`reduce`: the smallest part of a model that still fails, as a folder for a bug report."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphkit import __version__, events
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource
from graphkit.errors import BadOption, BadRequest, BadSample, ShapeMismatch
from graphkit.model import Model
from graphkit.parity import runners
from graphkit.parity.inputs import fixed_sizes, make_inputs, plan_inputs
from graphkit.parity.sizes import choose_sizes
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit.shrink import folder as folders
from graphkit.shrink.anonymize import Anonymizer
from graphkit.shrink.check_build import BuildCheck
from graphkit.shrink.check_command import CommandCheck
from graphkit.shrink.check_ort import RANDOM, OrtCheck, ParityCheck
from graphkit.shrink.command_line import show
from graphkit.shrink.graph import names_in
from graphkit.shrink.laboratory import invalidity, save
from graphkit.shrink.question import Budget, Question
from graphkit.shrink.result import Reduction as Reduction
from graphkit.shrink.result import Until, nodes_of
from graphkit.shrink.search import Reached, search
from graphkit.shrink.trial import Check, Trial

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

REPEATS = 3
"""Times that the whole model has to fail in the same way before it is reduced."""

_MOST_SAMPLES = 3
_TIMEOUT = 300.0
_DRAWS = 3  # random weights that are tried before the failure is said to need the model's own


@dataclass(frozen=True, slots=True)
class ReduceRequest:
    """Inputs and limits of a reduction.

    Attributes:
        shapes, dims, samples, seed: Inputs of the whole model, as of `CaptureRequest`.
        sets: The user's own values for all inputs, any number of times; nothing is drawn then.
        anonymize: Whether weights, inputs and names are replaced.
        timeout: Seconds that one trial may take, 300 where None; one that takes longer fails as `timeout`. Not for
            builds.
        trials: Most trials.
        seconds: Most time; None for any.
        backend, compute_capabilities: What builds, and for which GPUs.
    """

    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    seed: int = 0
    sets: tuple[Mapping[str, np.ndarray[Any, Any]], ...] = ()
    anonymize: bool = False
    timeout: float | None = None
    trials: int = 500
    seconds: float | None = None
    backend: str | None = None
    compute_capabilities: tuple[str, ...] = ()


def reduce(
    model: Any,
    *,
    output: Path | str,
    check: str | None = None,
    until: Literal["parity", "build", "ort"] | None = None,
    against: Any = None,
    request: ReduceRequest | None = None,
) -> Reduction:
    """Cut a failing model down to a part that fails in the same way and from which no node can be left out.

    The inputs of the part are tensors of the whole model, with the values that they had in it. Delta debugging after
    Zeller and Hildebrandt, IEEE TSE 28(2), 2002.

    Args:
        model: Path of an `.onnx` file, or a `Model`.
        output: Folder to write; it must not exist, or be empty.
        check: A command that ends with another status than 0 if the model fails: `python check.py {model} {inputs}`.
        until: Instead of a command: `parity` (outputs differ), `build` (no engine can be built), `ort` (ONNX Runtime
            cannot load or run it).
        against: With `parity`, the model whose outputs are right; else the same one without ONNX Runtime's
            optimisations.
        request: Inputs and limits.

    Raises:
        BadRequest: a file or the request is bad. `CannotWrite`: there is something at `output`.
        Refused: with `against`, that model does not run.

    Example:
        >>> reduce("model.onnx", until="ort", output="report").status
    """
    asked, output = request or ReduceRequest(), Path(output)
    folders.check_free(output)
    kind, judge = _check(check, until, against, asked)
    suspect, other = _opened(model, asked), None if against is None else _opened(against, ReduceRequest())
    if other is not None:
        _require_same_signature(suspect, other)
    name = model.origin.name if isinstance(model, Model) else Path(model).name
    blank = Reduction("passes", "", name, kind, judge.label, nodes_before=suspect.node_count)
    with events.stage("reduce") as said, tempfile.TemporaryDirectory(prefix="graphkit-reduce-") as scratch:
        samples, notes = _samples(suspect, asked, needed=judge.needs_values)
        paths = [save(m, Path(scratch)) for m in (suspect, other) if m is not None]
        whole = Trial(suspect, paths[0], samples, names_in(suspect), other, paths[1] if other is not None else None)
        found = _reproduced(judge, whole, blank)
        if isinstance(found, Reduction):
            return found
        question = Question(judge, found[0], Budget(asked.trials, asked.seconds), Path(scratch))
        reached = search(replace(whole, samples=found[1]), question)
        trials = question.budget.spent
        said.append(f"{suspect.node_count} -> {reached.trial.model.node_count} nodes; {trials} trials")
        notes = (*notes, *reached.notes)
        blank = replace(blank, same=question.reason, trials=trials, notes=notes, versions=_versions(judge))
        return _answer(question, reached, blank, asked, output)


# --- what is asked -----------------------------------------------------------------------------------------------


def _check(check: str | None, until: str | None, against: Any, asked: ReduceRequest) -> tuple[Until, Check]:
    if (check is None) == (until is None):
        raise BadOption(
            "what has to fail is said by either a command or --until",
            remedy="--check 'python check.py {model}', or --until parity, build or ort",
        )
    if against is not None and until != "parity":
        raise BadOption("--against is for --until parity", remedy="--until parity --against RIGHT.onnx")
    if until != "build" and (asked.backend is not None or asked.compute_capabilities):
        raise BadOption("--backend and --cc are for --until build", remedy="leave them out")
    if until == "build" and asked.timeout is not None:
        raise BadOption("--timeout is not for --until build", remedy="limit the whole with --max-seconds")
    timeout = _TIMEOUT if asked.timeout is None else asked.timeout
    if check is not None:
        return "check", CommandCheck(check, timeout)
    if until == "build":
        return "build", BuildCheck(asked.backend, asked.compute_capabilities)
    if until == "ort":
        return "ort", OrtCheck(timeout)
    if until != "parity":
        raise BadOption(f"--until {until}: there is no such check", remedy="--until parity, build or ort")
    return "parity", ParityCheck(against=against is not None, timeout=timeout)


def _opened(target: Any, asked: ReduceRequest) -> Model:
    request = CaptureRequest(shapes=asked.shapes, dims=asked.dims, samples=asked.samples, seed=asked.seed)
    if isinstance(target, Model):
        return _in_order(replace(target, dims=asked.dims or target.dims))
    source = recognise(target, request)
    if isinstance(source, RunnableSource):
        raise BadOption(f"{source.name} is no ONNX file", remedy="graphkit convert it, then reduce")
    return _in_order(source.capture(request))


def _in_order(model: Model) -> Model:
    """The model with its nodes in topological order, which ONNX demands and some files do not have."""
    made: set[int] = set()
    for node in model.ir.graph:
        if any(v is not None and v.producer() is not None and v.graph is model.ir.graph and id(v) not in made
               for v in node.inputs):  # fmt: skip
            graph = model.ir.clone()
            graph.graph.sort()
            return replace(model, ir=graph)
        made.update(map(id, node.outputs))
    return model


def _require_same_signature(model: Model, other: Model) -> None:
    ours, theirs = model.signature, other.signature
    for what, a, b in (("inputs", ours.inputs, theirs.inputs), ("outputs", ours.outputs, theirs.outputs)):
        if {(s.name, s.dtype) for s in a} != {(s.name, s.dtype) for s in b}:
            raise ShapeMismatch(
                f"the two models have different {what}",
                details=tuple(f"{n}: {', '.join(map(str, s)) or 'none'}" for n, s in (("MODEL", a), ("--against", b))),
                remedy="compare models with the same inputs and outputs",
            )


def _samples(model: Model, asked: ReduceRequest, *, needed: bool) -> tuple[tuple[Arrays, ...], tuple[str, ...]]:
    """Sets of inputs, and what to say where there are none."""
    names = {s.name for s in model.signature.inputs}
    for each in asked.sets:
        if set(each) != names:
            raise BadSample(
                f"a set of inputs has {', '.join(sorted(each))}", remedy=f"the inputs are: {', '.join(sorted(names))}"
            )
    if asked.sets:
        return asked.sets, ()
    try:
        plans, given = plan_inputs(model), {s.name: s.value for s in asked.samples}
        fixed = fixed_sizes(plans, given)
        points = choose_sizes(model.signature, model.dims, [model.origin.sizes], fixed=fixed)
        drawn = [make_inputs(plans, {**p.sizes, **fixed}, asked.seed + p.draw, given) for p in points]
    except BadRequest as error:
        if needed or asked.samples:
            raise
        return (), (f"no inputs could be made for the whole model: {error.message}",)
    return tuple(_different(drawn)), ()


def _different(samples: Sequence[Arrays]) -> Iterator[Arrays]:
    """Sets of inputs without those that are there already: where the user gives every value, all are one."""
    import numpy as np

    seen: list[Arrays] = []
    for sample in samples:
        if not any(all(np.array_equal(sample[n], other[n]) for n in sample) for other in seen):
            seen.append(sample)
            yield sample


# --- does it fail, and does it keep failing ----------------------------------------------------------------------


def _reproduced(check: Check, whole: Trial, blank: Reduction) -> Reduction | tuple[str, tuple[Arrays, ...]]:
    """The reason of the first failure and the samples that have it, or the answer where there is nothing to reduce."""
    runners.warm_up()
    numbers: list[int | None] = [*range(len(whole.samples))] if check.each_sample and whole.samples else [None]
    results = {n: check.run(whole, n) for n in numbers}
    failing = {n: f for n, f in results.items() if f is not None}
    tried = f"{len(numbers)} sets of inputs" if len(numbers) > 1 else "the whole model"
    if not failing:
        return replace(blank, reason=f"nothing to reduce: the check passes on {tried}")
    number, failure = next(iter(failing.items()))
    for _ in range(REPEATS - 1):
        again = check.run(whole, number)
        if failure.reason == RANDOM or again is None or failure.reason not in again.reasons:
            then = "it passes" if again is None else again.text.splitlines()[0]
            first = failure.text.splitlines()[0]
            why = first if failure.reason == RANDOM else f"first {first}; then, on the same inputs, {then}"
            return replace(blank, status="flaky", reason=f"the failure is not stable: {why}", failure=failure.text)
    same = [n for n, f in failing.items() if failure.reason in f.reasons]
    kept = [n for n in same if n is not None][:_MOST_SAMPLES]
    return failure.reason, tuple(whole.samples[n] for n in kept) if kept else whole.samples[:_MOST_SAMPLES]


# --- the answer --------------------------------------------------------------------------------------------------


def _answer(question: Question, reached: Reached, blank: Reduction, asked: ReduceRequest, output: Path) -> Reduction:
    trial = reached.trial
    if asked.anonymize:
        neutral = _anonymous(question, trial, asked.seed)
        if neutral is None:
            why = "the failure vanishes with random weights and inputs of the same statistics: nothing was written"
            return replace(blank, status="not anonymous", reason=why, nodes_after=trial.model.node_count)
        trial = neutral
        blank = replace(blank, model="model", anonymized=True, notes=_ANONYMOUS)
    failures = question.judge(trial)
    if not failures:
        return replace(blank, status="flaky", reason="the reduced model failed, and does not fail again")
    nodes, shown = trial.model.node_count, show(question.check, trial.model)
    found = replace(
        blank,
        status="reduced" if reached.minimal else "stopped",
        reason=_said(nodes, blank.nodes_before, minimal=reached.minimal, spent=question.budget.over),
        check=shown.label,
        failure=_without_paths(failures[0].text, trial, question.folder),
        nodes_after=nodes,
        nodes=nodes_of(trial.model),
        inputs=trial.model.signature.inputs,
        outputs=trial.model.signature.outputs,
        samples=len(trial.samples),
        tolerances=tuple(f.tolerances for f in failures),
        command=shown.command,
    )
    with folders.appearing(output) as temporary:
        found = folders.write(temporary, trial, found, shown.copies)
    return replace(found, folder=str(output))


def _said(nodes: int, before: int, *, minimal: bool, spent: bool) -> str:
    if minimal:
        return f"{nodes} of {before} nodes fail in the same way"
    if spent:
        return f"stopped at {nodes} of {before} nodes, not minimal: the budget of trials or time is spent"
    return "no part of the model fails in the same way: what fails may not be in its nodes; the whole was written"


_ANONYMOUS = (
    "weights and inputs are random, with the mean, deviation and range of the real ones; scalars and short vectors of "
    "integers (shapes, axes) are kept",
    "names are neutral; those of operators, their attributes and of model-local functions are kept",
)


def _anonymous(question: Question, best: Trial, seed: int) -> Trial | None:
    """The same failure without anything of the model's own; None where it cannot be had."""
    valid = invalidity(best.path) is None
    for draw in range(_DRAWS):
        anonymizer = Anonymizer(seed + draw)
        model = anonymizer.model(best.model)
        other = anonymizer.model(best.other) if best.other is not None else None
        samples = tuple(anonymizer.sample(s) for s in best.samples)
        paths = [save(m, question.folder) for m in (model, other) if m is not None]
        if valid and any(invalidity(path) is not None for path in paths):
            continue
        trial = Trial(model, paths[0], samples, names_in(model), other, paths[1] if other is not None else None)
        if question.judge(trial):
            return trial
    return None


def _without_paths(text: str, trial: Trial, scratch: Path) -> str:
    """The text without the places of our temporary files."""
    paths = [(str(trial.path), "model.onnx"), (str(trial.path.parent), "."), (str(scratch), ".")]
    for path, name in paths:
        text = text.replace(path, name)
    return text


def _versions(check: Check) -> dict[str, str]:
    names = ["onnx", "onnxruntime", "numpy"]
    if isinstance(check, BuildCheck):
        names += ["polygraphy", "tensorrt-rtx", "tensorrt"]
    found = {"graphkit": __version__}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # not installed: it took no part
    return {**found, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
