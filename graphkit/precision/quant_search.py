"""A quantised model that loses no more than it may: calibration once, then the search for what to keep."""

from __future__ import annotations

import functools
from typing import Any, Literal

from graphkit.errors import BadOption
from graphkit.model import Model
from graphkit.precision import int4
from graphkit.precision.calibration import Method
from graphkit.precision.data import CalibrationData, made_up, open_data
from graphkit.precision.quant_select import nothing_left, refuse_quantised
from graphkit.precision.quantize import prepare
from graphkit.precision.search import Metric, SearchResult, search
from graphkit.precision.search_groups import layers_of


def within(
    model: Model,
    precision: Literal["int8", "fp8", "int4"],
    data: Any = None,
    *,
    max_drop: float,
    metric: Metric = "cosine",
    method: Method = "minmax",
    uncalibrated: bool = False,
    block: int | None = None,
    most: int = 64,
) -> SearchResult:
    """The model in a precision, with the cheapest set of layers in float32 that keeps the error at `max_drop` or below.

    Args:
        data: For calibration, and its first samples for the error; int4 measures the error on made-up inputs without.
        max_drop, metric, most: As in `search.search`.
        method, uncalibrated, block: As in `quantize.lower`.

    Raises: as both.
    """
    samples: CalibrationData
    if precision == "int4":
        if uncalibrated or method != "minmax":
            raise BadOption("int4 rounds weights, and calibrates nothing", remedy="leave method and --uncalibrated out")
        block = int4.DEFAULT_BLOCK if block is None else block
        refuse_quantised(model)
        found, left = int4.fitting(model, block)
        if not found:
            raise nothing_left("int4", left)
        samples = open_data(model, data) if data is not None else made_up(model)
        layers = layers_of(model, (each.name for each in found))
        lower = functools.partial(_int4, model, block)
        return search(model, lower, layers, samples, max_drop=max_drop, metric=metric, most=most)
    if block is not None:
        raise BadOption(
            f"{precision} has a scale for each channel, not for each block", remedy="leave the block size out"
        )
    calibrated = prepare(model, precision, data, method=method, uncalibrated=uncalibrated)
    samples = open_data(model, data) if data is not None else made_up(model)
    layers = layers_of(calibrated.model, (each.name for each in calibrated.found))
    return search(model, calibrated.lower, layers, samples, max_drop=max_drop, metric=metric, most=most)


def _int4(model: Model, block: int, keep: frozenset[str]) -> Any:
    return int4.lower(model, block=block, keep=keep)
