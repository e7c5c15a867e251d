"""What runs in the child process: TensorRT or TensorRT-RTX, through Polygraphy.

Nothing here raises for what is the model's fault: a reply says `built`, `refused` (by the parser) or `failed` (in the
build), and the parent, which knows the user's code, makes an error of it. Which of the two libraries Polygraphy uses
is decided by the child's environment (`POLYGRAPHY_USE_TENSORRT_RTX`) before anything is imported.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import importlib
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphkit.engine import trt_network
from graphkit.engine.trt_session import Session, make_monitor, open_session
from graphkit.errors import BadSample, CorruptFile

Reply = dict[str, Any]

Shapes = dict[str, list[list[int]]]
"""Smallest, usual and largest shape of each input."""


def build(
    model_path: str,
    engine_path: str,
    profiles: list[Shapes],
    capabilities: list[str],
    tf32: bool,
    rtx: bool,
    settings: dict[str, Any],
) -> Reply:
    """Parse `model_path`, build, and write the engine to `engine_path`.

    Args:
        model_path: A self-contained ONNX file that only graphkit writes to.
        engine_path: Where to write.
        profiles: Of each optimization profile the smallest, usual and largest shape of each input.
        capabilities: TensorRT-RTX only: `8.6`; [] means the library's portable default, 8.0 and later.
        tf32: Whether float32 matrix products may round their operands to 10 bits of mantissa.
        rtx: Which library is meant; must agree with the environment.
        settings: As `TensorRTSettings.to_json` has them.
    """
    from polygraphy.exception import PolygraphyException

    session = open_session(rtx)
    started = time.perf_counter()
    parsed = parse(session, model_path)
    if isinstance(parsed, dict):
        return parsed
    refusal = _refuse_io(parsed[1], profiles[0])
    if refusal is not None:
        return refusal
    ask = _Ask(profiles, capabilities, tf32, settings)
    made = _build_for(session, parsed, ask, watched=True)
    if not isinstance(made, _Built):
        return _failed(session, parsed, ask, made)
    try:
        looked_into = _looked_into(session, made, settings)
    except PolygraphyException as error:
        return _failure(session, ask, session.log.errors or [str(error).splitlines()[0]], {})
    unwritten = write(engine_path, made.engine)
    if unwritten is not None:
        return unwritten
    return {
        "status": "built",
        "seconds": time.perf_counter() - started,
        "version": session.trt.__version__,
        "tf32": made.tf32,
        "warnings": list(session.log.warnings),
        "unfit": _unfit(session, parsed, ask),
        **looked_into,
        **trt_network.describe(parsed[1]),
    }


def write(path: str, data: Any) -> Reply | None:
    """Write an engine; where the disk has no room, the reply that says so to the parent, which knows its real name."""
    try:
        Path(path).write_bytes(memoryview(data))
    except OSError as error:
        return {"status": "unwritten", "errno": error.errno}
    return None


def known_capabilities() -> list[str]:
    """Compute capabilities that the installed TensorRT-RTX builds for: `8.6`."""
    trt = importlib.import_module("tensorrt_rtx")
    names = [name[2:] for name in trt.ComputeCapability.__members__ if re.fullmatch(r"SM\d{2,}", name)]
    return [f"{major}.{minor}" for major, minor in sorted((int(n[:-1]), int(n[-1])) for n in names)]


def gpu_name() -> str:
    """What the driver calls the first GPU; "" without one."""
    cuda, text = _driver(), ctypes.create_string_buffer(256)
    if cuda is None or cuda.cuDeviceGetName(text, len(text), 0) != 0:
        return ""
    return text.value.decode("utf-8", "replace")


def _driver() -> Any:
    """The CUDA driver, ready; None without one."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return cuda if cuda.cuInit(0) == 0 else None


def gpu_capabilities() -> list[str]:
    """Compute capability of each GPU that the driver shows; [] without a driver."""
    cuda, count = _driver(), ctypes.c_int()
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [f"{_attribute(cuda, 75, index)}.{_attribute(cuda, 76, index)}" for index in range(count.value)]


def _attribute(cuda: Any, attribute: int, index: int) -> int:
    """75 and 76 are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h)."""
    device, value = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


# --- parsing -----------------------------------------------------------------------------------------------------

Network = tuple[Any, Any, Any]
"""Builder, network and parser, as Polygraphy hands them on: the parser crashes if its network is collected."""


def parse(session: Session, model_path: str) -> Network | Reply:
    """The network that the parser makes of a file, or what it refuses."""
    from polygraphy.backend.trt import network_from_onnx_path
    from polygraphy.exception import PolygraphyException

    try:
        parsed: Network = network_from_onnx_path(model_path, strongly_typed=True)
    except PolygraphyException as error:
        return {"status": "refused", "errors": _parser_errors(session, model_path), "reason": str(error)}
    network = parsed[1]
    if network.num_layers == 0 or network.num_outputs == 0:  # parse() is True for an HTML page
        return {"status": "refused", "errors": [], "reason": "the parser found no layers in it"}
    return parsed


def _parser_errors(session: Session, model_path: str) -> list[Reply]:
    """Every node that the parser refuses. Polygraphy logs them one by one and keeps none, so parse once more."""
    from polygraphy.backend.trt import util as polygraphy_trt

    trt = session.trt
    logger = polygraphy_trt.get_trt_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(_strong(trt))
    parser = trt.OnnxParser(network, logger)
    parser.parse_from_file(model_path)
    return [
        {
            "index": error.node(),
            "name": error.node_name(),
            "operator": error.node_operator(),
            "code": getattr(error.code(), "name", str(error.code())),
            "reason": error.desc(),
            "functions": [str(f) for f in error.local_function_stack()],
        }
        for error in (parser.get_error(i) for i in range(parser.num_errors))
    ]


def _strong(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _refuse_io(network: Any, profile: Shapes) -> Reply | None:
    """An input whose values are shapes needs ranges of values, which nobody gave; a renamed one has no profile."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    shapes = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    names = [tensor.name for tensor in inputs]
    if shapes:
        reason = f"the values of input {', '.join(f'`{n}`' for n in shapes)} decide shapes inside the model"
        return {"status": "refused", "errors": [], "reason": reason, "inputs": shapes}
    if sorted(names) != sorted(profile):
        return {"status": "refused", "errors": [], "reason": f"its network has the inputs {names}, not {[*profile]}"}
    return None


# --- building ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ask:
    profiles: list[Shapes]
    capabilities: list[str]
    tf32: bool
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Built:
    engine: Any
    tf32: bool


def _build_for(session: Session, parsed: Network, ask: _Ask, *, watched: bool) -> _Built | list[str]:
    """The engine, or the library's own error lines."""
    from polygraphy.backend.trt import engine_bytes_from_network
    from polygraphy.exception import PolygraphyException

    session.log.errors = []
    try:
        config = _config(session, parsed, ask, watched)
        engine = engine_bytes_from_network(parsed, config=config, save_timing_cache=ask.settings.get("timing_cache"))
    except (PolygraphyException, RuntimeError) as error:  # the second: a shape that no profile can hold
        return session.log.errors or [str(error).splitlines()[0]]
    return _Built(engine, bool(config.get_flag(session.trt.BuilderFlag.TF32)))


def _config(session: Session, parsed: Network, ask: _Ask, watched: bool) -> Any:
    trt = session.trt
    options: dict[str, Any] = {"profiles": [_profile(shapes) for shapes in ask.profiles]}
    if watched:
        options["progress_monitor"] = make_monitor(trt)
    if "workspace" in ask.settings:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: ask.settings["workspace"] << 20}
    if not session.rtx:
        return _tensorrt_config(trt, parsed, ask, options)
    from polygraphy.backend.tensorrt_rtx import create_config_rtx

    targets = [tuple(int(part) for part in c.split(".")) for c in ask.capabilities] or None
    config = create_config_rtx(parsed[0], parsed[1], compute_capabilities=targets, **options)
    # Polygraphy's config for RTX has no say on TF32, and leaves the library's default: on.
    if ask.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    return config


def _profile(shapes: Shapes) -> Any:
    from polygraphy.backend.trt import Profile

    made = Profile()
    for name, (low, opt, high) in shapes.items():
        made.add(glob.escape(name), tuple(low), tuple(opt), tuple(high))  # Polygraphy takes `x[0]` for a pattern
    return made


_HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def _tensorrt_config(trt: Any, parsed: Network, ask: _Ask, options: dict[str, Any]) -> Any:
    from polygraphy.backend.trt import create_config

    given = ask.settings
    if "timing_cache" in given:
        options["load_timing_cache"] = given["timing_cache"]
    if "hardware" in given:
        options["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[given["hardware"]])
    if "level" in given:
        options["builder_optimization_level"] = given["level"]
    for setting, option in (("version_compatible",) * 2, ("refittable",) * 2, ("strip_weights", "strip_plan")):
        if given.get(setting):
            options[option] = True
    if given.get("strip_weights"):
        options["refittable"] = True  # what was taken out comes back by a refit only
    config = create_config(parsed[0], parsed[1], tf32=ask.tf32, **options)
    if "timing_cache" in given:
        config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
    return config


def _looked_into(session: Session, made: _Built, settings: dict[str, Any]) -> Reply:
    """What only TensorRT says, which has the GPU to load what it built."""
    from graphkit.engine import trt_engine

    if session.rtx:
        return {"inspector": {}, "refittable": []}
    refittable = bool(settings.get("refittable") or settings.get("strip_weights"))
    return trt_engine.look_into(session, made.engine, refittable=refittable)


_NAMES_A_TARGET = re.compile(r"\bSM ?\d{2,}\b", re.IGNORECASE)


def _failed(session: Session, parsed: Network, ask: _Ask, lines: list[str]) -> Reply:
    """Why, and where the reason is a target: which targets can be built and which cannot, each tried alone.

    One bad target fails the whole build, and its error names the first one only.
    """
    alone: dict[str, list[str] | None] = {}
    if len(_targets(session, ask)) > 1 and any(_NAMES_A_TARGET.search(line) for line in lines):
        alone = _alone(session, parsed, ask)
    return _failure(session, ask, lines, alone)


def _failure(session: Session, ask: _Ask, lines: list[str], alone: dict[str, list[str] | None]) -> Reply:
    facts = {"asked": ask.capabilities, "targets": alone, "version": session.trt.__version__}
    return {"status": "failed", "lines": lines, **facts}


def _unfit(session: Session, parsed: Network, ask: _Ask) -> dict[str, list[str]]:
    """Targets that the default build claims but that refuse the model when they are named, with the reason.

    TensorRT-RTX 1.7.1 builds an FP8 model for "8.0 and later", yet not for 8.0, nor for 8.6: they have no FP8. The
    header says 8.0 all the same.
    """
    network = parsed[1]
    made = (network.get_layer(i).get_output(0) for i in range(network.num_layers))
    if not session.rtx or ask.capabilities or not any(t is not None and t.dtype.name in _RARE for t in made):
        return {}
    return {target: lines for target, lines in _alone(session, parsed, ask).items() if lines is not None}


_RARE = ("FP8", "FP4", "E8M0")


def _alone(session: Session, parsed: Network, ask: _Ask) -> dict[str, list[str] | None]:
    """Each target built alone: None, or why not."""
    alone: dict[str, list[str] | None] = {}
    for target in _targets(session, ask):
        made = _build_for(session, parsed, replace(ask, capabilities=[target]), watched=False)
        alone[target] = None if isinstance(made, _Built) else made
    return alone


def _targets(session: Session, ask: _Ask) -> list[str]:
    """What is built for; TensorRT-RTX's default is everything from 8.0 on."""
    return ask.capabilities or ([c for c in known_capabilities() if float(c) >= 8] if session.rtx else [])


# --- running -----------------------------------------------------------------------------------------------------


def run_engine(
    engine_path: str, inputs_npz: str, outputs_npz: str, rtx: bool, sha256: str, inputs: list[str], profile: int
) -> list[str]:
    """Run an engine once on a GPU: arrays from one `.npz` to another; returns the names of the outputs, in order.

    Args:
        engine_path: An engine that graphkit built itself.
        inputs_npz, outputs_npz: `arr_0`, `arr_1`, ...: numpy gives keyword names such as `file` a meaning of their own.
        rtx: Which library is meant; must agree with the environment.
        sha256: Digest of the engine when it was built. Loading an engine can run code in it: others are refused.
        inputs: Names of the inputs, in the order of the arrays.
        profile: Number of the optimization profile, from 0.

    Raises:
        CorruptFile: the file is not the engine that was built.
        BadSample: the engine does not take these inputs, or could not be run; the library's lines are given.
    """
    import numpy as np
    from polygraphy.backend.trt import TrtRunner, engine_from_bytes
    from polygraphy.exception import PolygraphyException

    session = open_session(rtx)
    data = Path(engine_path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptFile(f"{Path(engine_path).name} is not the engine that was built: its sha256 differs")
    with np.load(inputs_npz, allow_pickle=False) as file:
        feed = {name: file[f"arr_{index}"] for index, name in enumerate(inputs)}
    try:
        with TrtRunner(engine_from_bytes(data), optimization_profile=profile) as runner:
            outputs = runner.infer(feed)
    except PolygraphyException as error:
        lines = tuple(session.log.errors[:8])
        raise BadSample(f"the engine could not run: {str(error).splitlines()[0]}", details=lines) from error
    np.savez(outputs_npz, *(np.asarray(value) for value in outputs.values()))
    return list(outputs)
