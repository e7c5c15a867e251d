"""What an engine is asked for, what comes back, and which library builds it.

Adding a target is one file with a `Builder` and one line in `BUILDERS`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from graphkit import atomic, isolate
from graphkit.engine import plan, refusal
from graphkit.engine.kernels import Kernel, of_inspector
from graphkit.engine.profiles import Profile, make_profile, prove_all
from graphkit.engine.settings import NO_SETTINGS, TensorRTSettings
from graphkit.errors import (
    BuildFailed,
    ExtraMissing,
    Lacking,
    NativeCrash,
    TimedOut,
    UnknownTarget,
)
from graphkit.model import Finding, Model, file_sha256
from graphkit.shapes import DimRange

BUILDERS = {
    "tensorrt": "graphkit.engine.tensorrt:TensorRTBuilder",
    "rtx": "graphkit.engine.rtx:RtxBuilder",
}
"""Name -> class, imported when it is needed; the first that can build here is the default."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        model: The graph. Its own declared ranges count, where `dims` says nothing else.
        dims: Ranges of symbolic dimensions of its inputs.
        compute_capabilities: `8.6`; () means the library's portable default (TensorRT-RTX: 8.0 and later; TensorRT:
            the GPU of this machine).
        tf32: Whether float32 matrix products may run in TF32, which keeps 10 bits of mantissa.
        file: The model as a file in a private folder, if it is saved already.
        profiles: Optimization profiles, each the ranges in which it differs from `dims`; () for one that is `dims`.
        settings: What only TensorRT can be asked for.
        find_ranges: Whether ranges that nobody gave are to be found in the graph (`free_dims`).
    """

    model: Model
    dims: tuple[DimRange, ...] = ()
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = True
    file: Path | None = None
    profiles: tuple[tuple[DimRange, ...], ...] = ()
    settings: TensorRTSettings = NO_SETTINGS
    find_ranges: bool = False

    @property
    def ranges(self) -> tuple[DimRange, ...]:
        """The model's ranges of dimensions that its inputs still have, and over them those of the request."""
        symbols = self.model.signature.symbols
        known = {d.symbol: d for d in self.model.dims if d.symbol in symbols}
        return tuple((known | {d.symbol: d for d in self.dims}).values())

    @property
    def range_sets(self) -> tuple[tuple[DimRange, ...], ...]:
        """The ranges of each profile, whole."""
        base = {d.symbol: d for d in self.ranges}
        return tuple(tuple((base | {d.symbol: d for d in each}).values()) for each in self.profiles or ((),))


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine file that was built and read back.

    Attributes:
        path: The file.
        kind: Library that builds and runs it.
        version: That library's version; no other release runs the file.
        targets: Compute capabilities that it runs on; `later` where newer ones are included.
        size: Bytes of the file.
        sha256: Digest of the file.
        model_sha256: Digest of the ONNX file that it was built from.
        layers: Number of layers of the network before fusion.
        seconds: Wall time, proof of the profile included.
        tf32: Whether TF32 is allowed in it.
        profile: Sizes that it accepts, and is tuned for.
        precision: Dtypes that it really has: of `inputs` and `outputs` by name, of `weights` in bytes by dtype, of
            `compute` (convolutions and matrix products) in layers by dtype: that of Q/DQ pairs where both operands
            have them, `int4 weights` where the weights alone do.
        findings: What the library warned of, and what it changed.
        more_profiles: Further profiles, after `profile`.
        weights: Names under which a refittable engine takes new weights.
        kernels: What TensorRT says that the engine runs; those of TensorRT-RTX are in its file (`kernels.in_engine`).
    """

    path: Path
    kind: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    targets: tuple[str, ...]
    size: int
    sha256: str
    model_sha256: str
    layers: int
    seconds: float
    tf32: bool
    profile: Profile
    precision: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    more_profiles: tuple[Profile, ...] = ()
    weights: tuple[str, ...] = ()
    kernels: tuple[Kernel, ...] = ()

    @property
    def profiles(self) -> tuple[Profile, ...]:
        return (self.profile, *self.more_profiles)


class Builder(Protocol):
    """A library that builds engines."""

    name: str

    def available(self) -> Lacking | None:
        """None, or the error that `build` would raise here."""

    def warm_up(self) -> None:
        """Start what takes time (imports in a child), and return at once."""

    def known(self) -> tuple[str, ...]:
        """Every compute capability that it builds for here.

        Raises:
            ExtraMissing, GpuRequired: it cannot build here.
        """

    def identity(self) -> dict[str, Any]:
        """What decides, beside the request, what it builds here: the library's version, and the GPU where it builds
        for that one. Imports no library."""

    def check(self, request: BuildRequest) -> None:
        """Refuse early, without building, what the request alone shows cannot be built.

        Raises:
            ExtraMissing, GpuRequired, UnknownTarget; BadDimRange, UnknownName, ShapeMissing of `make_profile`.
        """

    def build(self, request: BuildRequest, output: Path, *, durable: bool = True) -> Engine:
        """Build `output`, whole or not at all; synced to disk if it is to be `durable`.

        Raises:
            BadDimRange, UnknownName, ShapeMissing, TargetUnsupported: see `profiles.prove`.
            TargetUnsupported: the library takes some node, input or output not, or not as it is.
            BuildFailed: it took the graph but could not build it.
            UnknownTarget: a compute capability that it does not know.
            CannotWrite, NativeCrash, OutOfMemory, ExtraMissing, GpuRequired: what they say.
        """

    def run(self, engine: Engine, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run an engine that `build` made once on this machine's GPU: numpy arrays by name.

        Raises:
            GpuRequired: there is no GPU.
            CorruptFile: the file is no longer the one that was built.
            BadSample: it does not take these inputs.
        """


@dataclass(frozen=True, slots=True)
class EngineRunner:
    """An engine as one side of a comparison (a Runner of the parity room)."""

    builder: Builder
    engine: Engine

    @property
    def label(self) -> str:
        return f"{self.engine.kind} {self.engine.version} (cuda{', TF32' if self.engine.tf32 else ''})"

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.builder.run(self.engine, inputs)


def choose(backend: str | None = None) -> Builder:
    """The builder to use: the one that is named, or TensorRT where it is installed with a GPU, or TensorRT-RTX.

    Raises:
        UnknownTarget: there is no such backend.
        ExtraMissing, GpuRequired: it cannot build here.
    """
    if backend is not None and backend not in BUILDERS:
        raise UnknownTarget(f"unknown backend {backend!r}", remedy=f"--backend {' or --backend '.join(BUILDERS)}")
    lacks: Lacking | None = None
    for name in [backend] if backend else BUILDERS:
        builder = _load(name)
        lacks = builder.available()
        if lacks is None:
            return builder
    assert lacks is not None  # BUILDERS is not empty; without a name, the last one's lack is the cheapest to fix
    raise lacks


def _load(name: str) -> Builder:
    module, _, attribute = BUILDERS[name].partition(":")
    builder: Builder = getattr(importlib.import_module(module), attribute)()
    return builder


def missing(package: str, extra: str) -> ExtraMissing | None:
    """The error for a library that is not installed, else None; does not import it."""
    if importlib.util.find_spec(package) is not None:
        return None
    message = f"the Python package `{package}` is not installed"
    return ExtraMissing(message, remedy=f"pip install 'graphkit-onnx[{extra}]'")


@functools.cache
def visible_gpus() -> tuple[str, ...]:
    """Compute capability of each GPU that the driver shows; () without a driver that works.

    Asked in a child of its own: cuInit in a user's process would break every process that it forks later.
    """
    child = isolate.Worker("CUDA driver")
    try:
        return tuple(child.call("graphkit.engine.trt_child:gpu_capabilities", timeout=30.0))
    except (NativeCrash, TimedOut):
        return ()
    finally:
        child.close()


@functools.cache
def gpu_name() -> str:
    """What the driver calls the first GPU; "" without one."""
    child = isolate.Worker("CUDA driver")
    try:
        return str(child.call("graphkit.engine.trt_child:gpu_name", timeout=30.0))
    except (NativeCrash, TimedOut):
        return ""
    finally:
        child.close()


# --- what the libraries share ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Library:
    """One of NVIDIA's two libraries, and the child that it lives in.

    Attributes:
        title: What people call it.
        kind: What its engines are.
        rtx: Whether it is TensorRT-RTX.
        worker: The child.
    """

    title: str
    kind: Literal["tensorrt-rtx", "tensorrt"]
    rtx: bool
    worker: isolate.Worker


def check(builder: Builder, request: BuildRequest) -> None:
    """What every builder refuses early: it cannot build here, or a dimension has no range."""
    lacks = builder.available()
    if lacks is not None:
        raise lacks
    if request.find_ranges:
        return  # which ranges there are is known when they have been looked for
    for ranges in request.range_sets:
        make_profile(request.model.signature, ranges)


def build(library: Library, request: BuildRequest, output: Path, durable: bool) -> Engine:
    """Build in the child while the profile is proved in another; only when both went well it appears at `output`."""
    started = time.perf_counter()
    library.worker.start()
    profiles = [make_profile(request.model.signature, ranges) for ranges in request.range_sets]
    with (
        atomic.replacing(output, durable=durable) as temporary,
        tempfile.TemporaryDirectory(prefix="graphkit-") as folder,
        ThreadPoolExecutor(1) as meanwhile,
    ):
        proof = meanwhile.submit(prove_all, request.model, request.range_sets)
        # Never the user's path: parsers follow links.
        copy = request.file or request.model.save(Path(folder, "model.onnx"), durable=False)[0]
        model_sha256 = meanwhile.submit(file_sha256, copy)
        try:
            reply = library.worker.call(
                "graphkit.engine.trt_child:build",
                model_path=str(copy),
                engine_path=str(temporary),
                profiles=[{name: [list(s) for s in triple] for name, triple in p.shapes.items()} for p in profiles],
                capabilities=list(request.compute_capabilities),
                tf32=request.tf32,
                rtx=library.rtx,
                settings=request.settings.to_json(),
            )
        finally:
            proof.result()  # says more than what the library says of the same fault
        refusal.check(reply, request.model, library.title)
        header = _read_back(temporary, reply, request, library)
        return Engine(
            path=Path(output),
            kind=header.kind,
            version=header.version,
            targets=tuple(t for t in header.targets if t not in reply["unfit"]) or visible_gpus()[:1],
            size=header.size,
            sha256=file_sha256(temporary),
            model_sha256=model_sha256.result(),
            layers=reply["layers"],
            seconds=time.perf_counter() - started,
            tf32=reply["tf32"],
            profile=profiles[0],
            more_profiles=tuple(profiles[1:]),
            weights=tuple(reply["refittable"]),
            kernels=of_inspector(reply["inspector"]),
            precision={
                "inputs": reply["inputs"],
                "outputs": reply["outputs"],
                "weights": _weight_bytes(request.model),
                "compute": reply["compute"],
            },
            findings=refusal.findings(reply, request.model, library.title),
        )


def _read_back(path: Path, reply: Mapping[str, Any], request: BuildRequest, library: Library) -> plan.Plan:
    """The header of what was written; it must say what was asked for."""
    header = plan.read(path)
    asked, tf32 = set(request.compute_capabilities), request.tf32
    said = f"{header.kind} {header.version} for {', '.join(header.targets)}, TF32 {reply['tf32']}"
    right_targets = not library.rtx or not asked or set(header.targets) == asked
    if header.kind != library.kind or not right_targets or reply["tf32"] is not tf32:
        raise BuildFailed(
            f"{library.title} built something else than was asked for: {said}",
            details=(f"asked for: {library.kind} for {', '.join(sorted(asked)) or 'the default'}, TF32 {tf32}",),
        )
    return header


def _weight_bytes(model: Model) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for graph in (model.ir.graph, *model.ir.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                sizes[refusal.dtype_name(value.const_value.dtype)] += value.const_value.nbytes
    return dict(sorted(sizes.items()))
