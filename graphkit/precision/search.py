"""Which layers have to stay in higher precision, so that the error stays below a bound: the cheapest set that is found.

First every group of layers is lowered alone, which says what each costs in accuracy. Then groups are kept in the order
of their error per FLOP, as few as meet the bound (a bisection); and within those, layers are given back in halves as
long as the bound holds. Every set that is accepted was run as a whole: errors of layers do not add up.
The order by measured error is that of the sensitivity analysis in Wu et al., Integer Quantization for Deep Learning
Inference (arXiv 2004.09602, section 6.1); the halving is that of Zeller and Hildebrandt's delta debugging (2002).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphkit.errors import BadOption, PrecisionRefused
from graphkit.lowering import Lowering
from graphkit.parity.runners import OrtRunner
from graphkit.precision.search_groups import Group, Layer, grouped

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model

    Tensors = Mapping[str, np.ndarray[Any, Any]]

Metric = Literal["cosine", "l2"]
METRICS: tuple[str, ...] = get_args(Metric)
MOST_SAMPLES = 32
"""Samples that a set is run on: every one, or as many that are spread evenly over all."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One set that was run.

    Attributes:
        kept: How many layers stayed in higher precision.
        share: Share of the layers' FLOPs (of their number, where those are unknown) that were low.
        error: The largest over outputs and samples.
    """

    kept: int
    share: float
    error: float


@dataclass(frozen=True, slots=True)
class Row:
    """One group of layers.

    Attributes:
        group: What its layers have in common.
        layers: How many.
        error_alone: With this group lowered and no other; None where it was not run.
        share: Its share of the FLOPs of all layers.
        kept: How many of its layers stay in higher precision in the end.
    """

    group: str
    layers: int
    error_alone: float | None
    share: float
    kept: int


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The set that was found.

    Attributes:
        lowering: The model with it.
        keep: Names of the layers that stay in higher precision.
        error: What it loses, at most `max_drop`.
        rows: The groups, those that lose most alone first.
        trials: Every set that was run, in order.
        samples: How many samples each was run on.
        complete: Whether the search ended by itself, or by the limit on the number of trials.
    """

    lowering: Lowering
    keep: frozenset[str]
    error: float
    max_drop: float
    metric: Metric
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]
    samples: int
    complete: bool

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values; an error that is not finite is None."""
        return {
            "metric": self.metric,
            "max_drop": self.max_drop,
            "error": self.error,
            "keep": sorted(self.keep),
            "rows": [_finite(asdict(row)) for row in self.rows],
            "trials": [_finite(asdict(trial)) for trial in self.trials],
            "samples": self.samples,
            "complete": self.complete,
        }


def search(
    model: Model,
    lower: Callable[[frozenset[str]], Lowering],
    layers: Sequence[Layer],
    samples: Iterable[Tensors],
    *,
    max_drop: float,
    metric: Metric = "cosine",
    most: int = 64,
) -> SearchResult:
    """The cheapest set of layers that has to be kept for the error to stay at or below `max_drop`.

    Args:
        model: In float32: the reference.
        lower: Lowers every layer but the named ones.
        layers: What can be lowered, in the graph's order (`search_groups.layers_of`).
        samples: At most `MOST_SAMPLES` of them are run, evenly spread.
        max_drop: 1 - cosine, or the relative L2 error, of the worst output on the worst sample.
        most: Sets that are run at most, at least 2.

    Raises:
        BadOption: no such metric, a bound that is not positive, or no output is a float.
        PrecisionRefused: the bound is not met with any group lowered.
    """
    if metric not in METRICS:
        raise BadOption(f"there is no metric {metric!r} to search by", remedy=f"one of {', '.join(METRICS)}")
    if not 0 < max_drop < math.inf:
        raise BadOption(f"--max-drop {max_drop:g} is not above 0", remedy="--max-drop 0.01")
    if most < 2:
        raise BadOption(f"a search of {most} trials", remedy="at least 2")
    trials = _Trials(model, lower, layers, _spread(samples), metric, most)
    every = frozenset(layer.name for layer in layers)
    alone: dict[str, float] = {}
    groups: list[Group] = []
    keep: frozenset[str] = frozenset()
    if trials.error(keep) > max_drop:
        groups = grouped(layers)
        for group in groups:
            if trials.left > 1:
                alone[group.name] = trials.error(every - group.names)
        keep = _fewest(trials, _ranked(groups, alone), every, max_drop)
        keep = _given_back(trials, _ranked(groups, alone), keep, max_drop)
    return SearchResult(
        lower(keep),
        keep,
        trials.error(keep),
        max_drop,
        metric,
        tuple(_rows(groups or grouped(layers), alone, keep, layers)),
        tuple(trials.done),
        len(trials.samples),
        not trials.cut,
    )


def _ranked(groups: Sequence[Group], alone: Mapping[str, float]) -> list[Group]:
    """By error per FLOP, the largest first; a group that was not run is last."""
    return sorted(groups, key=lambda g: -alone.get(g.name, 0.0) / max(g.flops, 1.0))


def _fewest(trials: _Trials, ranked: Sequence[Group], every: frozenset[str], bound: float) -> frozenset[str]:
    """The first groups of the ranking, as few as meet the bound; errors are taken to fall as more are kept, and the
    set that is returned was run."""
    low, high, best = 1, len(ranked) - 1, None
    while low <= high and trials.left:
        middle = (low + high) // 2
        keep = _names(ranked[:middle])
        if trials.error(keep) <= bound:
            best, high = keep, middle - 1
        else:
            low = middle + 1
    if best is None:
        # No prefix was good: the least harmful group alone is the last chance to lower anything.
        good = [g for g in reversed(ranked) if trials.known(every - g.names) <= bound]
        if not good:
            lowest = min((trials.known(every - g.names) for g in ranked), default=math.inf)
            raise PrecisionRefused(
                f"with any group of layers lowered the error is above {bound:g}; the least is {lowest:.3g}",
                remedy="a larger --max-drop, another precision, or better calibration data",
            )
        best = every - good[0].names
    return best


def _given_back(trials: _Trials, ranked: Sequence[Group], keep: frozenset[str], bound: float) -> frozenset[str]:
    """Lower kept layers too, the least harmful groups first: a whole group, else its halves."""
    pending = [[n for n in group.order if n in keep] for group in ranked]
    pending = [names for names in pending if names]
    while pending:
        names = pending.pop()
        tried = keep - set(names)
        if not trials.left and not trials.has(tried):
            trials.cut = True
            break
        if trials.error(tried) <= bound:
            keep = tried
        elif len(names) > 1:
            half = len(names) // 2
            pending += [names[:half], names[half:]]
    return keep


def _names(groups: Iterable[Group]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group.names)


def _rows(
    groups: Sequence[Group], alone: Mapping[str, float], keep: frozenset[str], layers: Sequence[Layer]
) -> Iterable[Row]:
    total = sum(layer.flops for layer in layers) or 1.0
    rows = [Row(g.name, len(g.order), alone.get(g.name), g.flops / total, len(g.names & keep)) for g in groups]
    return sorted(rows, key=lambda row: -1.0 if row.error_alone is None else row.error_alone, reverse=True)


@dataclass
class _Trials:
    """Runs sets of kept layers, each once."""

    model: Model
    lower: Callable[[frozenset[str]], Lowering]
    layers: Sequence[Layer]
    samples: Sequence[Tensors]
    metric: Metric
    most: int
    done: list[Trial] = field(default_factory=list)
    cut: bool = False
    _errors: dict[frozenset[str], float] = field(default_factory=dict)
    _expected: list[Tensors] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.most - len(self.done)

    def has(self, keep: frozenset[str]) -> bool:
        return keep in self._errors

    def known(self, keep: frozenset[str]) -> float:
        """The error of a set; infinite where it was not run."""
        return self._errors.get(keep, math.inf)

    def error(self, keep: frozenset[str]) -> float:
        """The error of a set, run if it was not."""
        if keep not in self._errors:
            self._errors[keep] = self._run(keep)
            total = sum(layer.flops for layer in self.layers) or 1.0
            kept = sum(layer.flops for layer in self.layers if layer.name in keep)
            self.done.append(Trial(len(keep), 1 - kept / total, self._errors[keep]))
        return self._errors[keep]

    def _run(self, keep: frozenset[str]) -> float:
        if not self._expected:
            with OrtRunner(self.model, optimize=False) as runner:
                self._expected = [_floats(runner.run(sample)) for sample in self.samples]
        with OrtRunner(self.lower(keep).model, optimize=False) as runner:
            pairs = zip(self._expected, self.samples, strict=True)
            return max(distance(expected, runner.run(sample), self.metric) for expected, sample in pairs)


def distance(expected: Tensors, found: Tensors, metric: Metric) -> float:
    """1 - cosine, or the relative L2 error, of the worst of the expected outputs; infinite where one has NaN or
    infinities that the other has not."""
    import numpy as np

    from graphkit.parity.metrics import measure

    worst = 0.0
    for name, reference in expected.items():
        candidate = found[name]
        if candidate.shape != reference.shape or not (np.isfinite(candidate) == np.isfinite(reference)).all():
            return math.inf
        measured = measure(reference, candidate)
        if measured:
            worst = max(worst, 1 - measured["cosine"] if metric == "cosine" else measured["l2"])
    return worst


def _spread(samples: Iterable[Tensors]) -> list[Tensors]:
    """As many as are run; whatever the data is sorted by, both of its ends are among them."""
    import numpy as np

    held = list(samples)
    if len(held) <= MOST_SAMPLES:
        return held
    return [held[at] for at in np.linspace(0, len(held) - 1, MOST_SAMPLES).astype(int)]


def _floats(outputs: Tensors) -> Tensors:
    floats = {name: value for name, value in outputs.items() if value.dtype.kind == "f"}
    if not floats:
        raise BadOption(
            f"no output is a float, so that no error can be measured: {', '.join(outputs)}",
            remedy="quantise without --max-drop, or the model without its last nodes",
        )
    return floats


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
