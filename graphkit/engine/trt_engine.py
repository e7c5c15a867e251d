"""What a child does with an engine that graphkit built: look into it, time its layers, give it new weights.

All of it needs a GPU. Loading an engine can run code that is in it, so the sha256 of the one that was built comes
along.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from graphkit.engine.trt_child import write
from graphkit.engine.trt_session import Session, open_session
from graphkit.errors import BadSample, CorruptFile

Reply = dict[str, Any]


def look_into(session: Session, data: Any, *, refittable: bool) -> Reply:
    """Its layers as `IEngineInspector` has them, and the names under which it takes new weights.

    Args:
        data: The engine's bytes, just built here.
    """
    from polygraphy.backend.trt import engine_from_bytes
    from polygraphy.backend.trt import util as polygraphy_trt

    trt = session.trt
    engine = engine_from_bytes(data)
    report = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    names = trt.Refitter(engine, polygraphy_trt.get_trt_logger()).get_all_weights() if refittable else []
    return {"inspector": json.loads(report), "refittable": sorted(names)}


def refit(engine_path: str, model_path: str, output_path: str, rtx: bool, sha256: str) -> Reply:
    """Put the weights of an ONNX file into an engine, and write the engine to `output_path`.

    Returns:
        `status`: `refitted`, with the number of `weights`; or `refused`, with the `lines` that say why, and the names
        of weights that are `missing`; or `unwritten`, with the `errno`.

    Raises:
        CorruptFile: the engine is not the one that was built.
    """
    from polygraphy.backend.trt import engine_from_bytes
    from polygraphy.backend.trt import util as polygraphy_trt
    from polygraphy.exception import PolygraphyException

    session = open_session(rtx)
    trt, logger = session.trt, polygraphy_trt.get_trt_logger()
    try:
        engine = engine_from_bytes(_read(engine_path, sha256))
    except PolygraphyException as error:  # of another release or GPU
        return {"status": "refused", "lines": session.log.errors or [str(error).splitlines()[0]], "missing": []}
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    taken = parser.refit_from_file(model_path)
    missing = sorted(refitter.get_missing_weights())
    if not taken or missing or not refitter.refit_cuda_engine():
        said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"status": "refused", "lines": [*said, *session.log.errors], "missing": missing}
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    again = getattr(trt.SerializationFlag, "INCLUDE_REFIT", None)
    if again is not None:
        config.set_flag(again)  # else an engine that was stripped takes weights once only
    unwritten = write(output_path, engine.serialize_with_config(config))
    if unwritten is not None:
        return unwritten
    return {"status": "refitted", "weights": len(refitter.get_all_weights())}


def layer_times(
    engine_path: str, inputs_npz: str, rtx: bool, sha256: str, inputs: list[str], profile: int, rounds: int
) -> dict[str, float]:
    """Milliseconds of each layer, by its name in the engine: the mean of `rounds` runs, after one that is not counted.

    Layers are timed one after another, without overlap: their sum is more than a run takes.

    Raises:
        CorruptFile: the engine is not the one that was built. `BadSample`: it does not take these inputs.
    """
    import numpy as np
    from polygraphy.backend.trt import TrtRunner, engine_from_bytes
    from polygraphy.exception import PolygraphyException

    session = open_session(rtx)
    data = _read(engine_path, sha256)
    with np.load(inputs_npz, allow_pickle=False) as file:
        feed = {name: file[f"arr_{index}"] for index, name in enumerate(inputs)}
    try:
        with TrtRunner(engine_from_bytes(data), optimization_profile=profile) as runner:
            runner.infer(feed)
            totals: dict[str, float] = defaultdict(float)
            runner.context.profiler = _profiler(session.trt, totals)
            for _ in range(rounds):
                runner.infer(feed)
    except PolygraphyException as error:
        lines = tuple(session.log.errors[:8])
        raise BadSample(f"the engine could not run: {str(error).splitlines()[0]}", details=lines) from error
    return {name: total / rounds for name, total in totals.items()}


def _profiler(trt: Any, totals: dict[str, float]) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            totals[layer_name] += ms

    return Profiler()


def _read(path: str, sha256: str) -> bytes:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptFile(f"{Path(path).name} is not the engine that was built: its sha256 differs")
    return data
