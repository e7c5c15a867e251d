"""Engines that were built, run on this machine's GPU: once, or layer by layer against the clock."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphkit.engine import builder
from graphkit.engine.builder import Engine, Library
from graphkit.engine.kernels import Kernel
from graphkit.errors import BadSample, GpuRequired


def run(library: Library, engine: Engine, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run `engine` in the child on numpy arrays; see `Builder.run`."""
    import numpy as np

    _require_gpu(library)
    profile = profile_for(engine, {name: np.shape(value) for name, value in inputs.items()})
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        fed, made = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(fed, *inputs.values())
        names = library.worker.call(
            "graphkit.engine.trt_child:run_engine",
            engine_path=str(engine.path),
            inputs_npz=str(fed),
            outputs_npz=str(made),
            rtx=library.rtx,
            sha256=engine.sha256,
            inputs=list(inputs),
            profile=profile,
        )
        with np.load(made, allow_pickle=False) as file:
            return {name: file[f"arr_{index}"] for index, name in enumerate(names)}


def profile_for(engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The first profile that accepts inputs of these shapes. An engine of one profile judges for itself.

    Raises:
        BadSample: none of several does.
    """
    accepting = (number for number, profile in enumerate(engine.profiles) if profile.accepts(shapes))
    found = next(accepting, None if engine.more_profiles else 0)
    if found is None:
        said = ", ".join(f"{name} {list(sizes)}" for name, sizes in shapes.items())
        raise BadSample(
            f"none of the engine's {len(engine.profiles)} profiles takes {said}",
            details=tuple(f"profile {n}: {profile.to_json()}" for n, profile in enumerate(engine.profiles, 1)),
            remedy="give inputs inside one profile, or build with one more --profile",
        )
    return found


def layer_times(
    library: Library, engine: Engine, inputs: Mapping[str, Any], rounds: int = 10
) -> tuple[tuple[Kernel, float], ...]:
    """Milliseconds of each layer of an engine that `build` made, on this machine's GPU, with the ONNX nodes it is of.

    Args:
        inputs: Numpy arrays by name.
        rounds: Runs whose mean it is.

    Raises:
        GpuRequired, CorruptFile, BadSample: as `Builder.run`.
    """
    import numpy as np

    _require_gpu(library)
    profile = profile_for(engine, {name: np.shape(value) for name, value in inputs.items()})
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        fed = Path(folder, "in.npz")
        np.savez(fed, *inputs.values())
        times: dict[str, float] = library.worker.call(
            "graphkit.engine.trt_engine:layer_times",
            engine_path=str(engine.path),
            inputs_npz=str(fed),
            rtx=library.rtx,
            sha256=engine.sha256,
            inputs=list(inputs),
            profile=profile,
            rounds=rounds,
        )
    known = {kernel.name: kernel for kernel in engine.kernels}
    return tuple((known.get(name, Kernel(name, "", ())), ms) for name, ms in times.items())


def _require_gpu(library: Library) -> None:
    if not builder.visible_gpus():
        raise GpuRequired(
            f"running a {library.title} engine needs an NVIDIA GPU; the driver shows none",
            remedy="run it on a machine with one: `graphkit doctor` says what is missing here",
        )
