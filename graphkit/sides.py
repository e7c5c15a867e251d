"""What is compared: each side of a comparison with what runs it, or why nothing here can, and its inputs."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture.options import only, refuse_others
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource, check_dims
from graphkit.engine import plan
from graphkit.errors import (
    BadDimRange,
    BadOption,
    Lacking,
    ShapeMismatch,
    ShapeMissing,
    UnknownName,
    UnknownTarget,
    UntrustedSource,
)
from graphkit.model import Model, file_sha256
from graphkit.parity.judge import pair_names
from graphkit.parity.runners import OrtRunner, Runner
from graphkit.parity.unpack import WEIGHTS, unpack
from graphkit.shapes import DimRange, Sample, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from graphkit.engine.builder import Engine
    from graphkit.engine.plan import Plan
    from graphkit.engine.profiles import Profile

_BUILDERS = {"tensorrt-rtx": "rtx", "tensorrt": "tensorrt"}
_PYTHON_NUMBERS = {"int": "int64", "float": "float64"}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: What it is called: a file's name, `package.module:callable`, a class.
        label: What runs it, with name and version; the runner's own once it has run.
        runner: What runs it; None where this machine cannot.
        lacks: Why it cannot be run here.
        inputs: Its inputs in order; None where an engine does not say.
        dims: Ranges of their dimensions that it declares.
        model: Its graph, where it is one.
        engine: Whether it is an engine.
        framework: Whether its own framework runs it.
        partners: Its own name for each input of the base, where they differ.
    """

    name: str
    label: str
    runner: Runner | None = None
    lacks: str | None = None
    inputs: tuple[TensorSpec, ...] | None = None
    dims: tuple[DimRange, ...] = ()
    model: Model | None = None
    engine: bool = False
    framework: bool = False
    partners: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedRunner:
    """A runner under the name of its side, fed with the base's inputs."""

    name: str
    inner: Runner
    partners: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name}: {self.inner.label}"

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return self.inner.run({self.partners.get(name, name): value for name, value in inputs.items()})

    def release(self) -> None:
        """Free what the runner holds between runs."""
        if isinstance(self.inner, OrtRunner):
            self.inner.release()


def open_all(
    targets: Sequence[Any], request: CaptureRequest, *, optimize: bool, otherwise: tuple[TensorSpec, ...] = ()
) -> tuple[list[Side], Side]:
    """Every target as a Side, and the base: the one whose inputs the values are made for.

    The base is the first ONNX graph, else the first that a framework runs, else the first engine that says what its
    inputs are.

    Args:
        targets: The reference first. Paths, `package.module:callable`, Models or objects of a framework.
        request: `shapes` and `dims` concern the base; the rest what frameworks run.
        optimize: Whether ONNX Runtime may rewrite the candidates; the reference runs as it stands.
        otherwise: Shapes of a base that a framework runs, for which the request has none.

    Raises:
        ShapeMismatch: what a framework runs does not take the inputs of the graphs. `UntrustedSource`: an engine
        without its description. And what `recognise`, `capture` and `prepare` raise.
    """
    names = _names(targets)
    sources = [t if isinstance(t, Model) or is_engine(t) else recognise(t, request) for t in targets]
    _refuse_idle(request, sources)
    sides: list[Side | None] = [None] * len(targets)
    base: Side | None = None
    for i, source in enumerate(sources):
        if not isinstance(source, RunnableSource) and not is_engine(targets[i]):
            sides[i] = _graph(targets[i], source, names[i], request, base is None, optimize and i > 0)
            base = base or sides[i]
    engines = {i: _engine(Path(t), names[i], request.trust) for i, t in enumerate(targets) if is_engine(t)}
    known = next((e.inputs for e in engines.values() if e.inputs is not None), None)
    for i, source in enumerate(sources):
        if isinstance(source, RunnableSource):
            shapes = request.shapes or (() if base is not None else otherwise or known or ())
            own = only(request, source.options)
            sides[i] = _framework(source, names[i], replace(own, shapes=shapes), base)
            base = base or sides[i]
    for i, side in engines.items():
        sides[i] = side
    base = base or _only_engines(list(engines.values()), request)
    done = [side for side in sides if side is not None]
    return done, base


def _only_engines(engines: Sequence[Side], request: CaptureRequest) -> Side:
    """The base where there is nothing else: an engine's inputs are as its description says."""
    base = next((e for e in engines if e.inputs is not None), None)
    if base is None or base.inputs is None:
        raise ShapeMissing("no side says what its inputs are", remedy="compare with the ONNX file of the engine")
    if request.shapes:
        raise BadOption("--shape is given, but the inputs of engines are fixed", remedy="leave --shape out")
    check_dims(request.dims, base.inputs)
    asked = {d.symbol for d in request.dims}
    return replace(base, dims=(*request.dims, *(d for d in base.dims if d.symbol not in asked)))


@contextlib.contextmanager
def closing(sides: Sequence[Side]) -> Iterator[None]:
    """Free what the sides hold in the child processes when the block ends."""
    try:
        yield
    finally:
        for side in sides:
            if isinstance(side.runner, NamedRunner) and isinstance(side.runner.inner, OrtRunner):
                side.runner.inner.close()


def files_of(targets: Sequence[Any], sides: Sequence[Side]) -> dict[str, Path]:
    """Every file of the sides, by name; a graph's external weights, and what a folder holds, too."""
    import onnx_ir as ir

    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for target, side in zip(targets, sides, strict=True):
        if not isinstance(target, str | Path) or not Path(target).exists() or Path(target).resolve() in seen:
            continue
        seen.add(Path(target).resolve())
        if Path(target).is_dir():  # a SavedModel
            inside = sorted(p for p in Path(target).rglob("*") if p.is_file())
            found |= {f"{side.name}/{p.relative_to(target).as_posix()}": p for p in inside}
            continue
        found[side.name] = Path(target)
        values = side.model.ir.graph.initializers.values() if side.model is not None else ()
        tensors = [v.const_value for v in values if isinstance(v.const_value, ir.ExternalTensor)]
        for location in sorted({str(t.location) for t in tensors} - {WEIGHTS}):
            found[str(Path(side.name).with_name(location))] = Path(target).parent / location
    return found


# --- names and kinds ---------------------------------------------------------------------------------------------


def _names(targets: Sequence[Any]) -> list[str]:
    """A short name for each: with its folder where two files have one name, with a number where one comes again."""
    paths = [Path(t) if isinstance(t, str | Path) else None for t in targets]
    known = {p.resolve() for p in paths if p is not None}
    names: list[str] = []
    for target, path in zip(targets, paths, strict=True):
        name = _object_name(target) if path is None else path.name
        if path is not None and sum(p.name == path.name for p in known) > 1:
            name = f"{path.resolve().parent.name}/{path.name}" if path.is_absolute() else str(path)
        again = sum(n == name or n.startswith(f"{name} (") for n in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return names


def _object_name(target: Any) -> str:
    return target.origin.name or "model" if isinstance(target, Model) else type(target).__name__


def is_engine(target: Any) -> bool:
    """Whether a target is the path of an engine file."""
    return isinstance(target, str | Path) and plan.is_engine(Path(target))


def _refuse_idle(request: CaptureRequest, sources: Sequence[Any]) -> None:
    """Options that no side listens to."""
    heard: frozenset[str] = frozenset().union(*(s.options for s in sources if isinstance(s, RunnableSource)))
    refuse_others(request, heard, "any of the sides")


# --- ONNX --------------------------------------------------------------------------------------------------------


def _graph(target: Any, source: Any, name: str, request: CaptureRequest, is_base: bool, optimize: bool) -> Side:
    asked = CaptureRequest(shapes=request.shapes, dims=request.dims) if is_base else CaptureRequest()
    if isinstance(source, Model):
        model = _as_given(source, asked)
        runner = NamedRunner(name, OrtRunner(model, optimize=optimize))
        return Side(name, runner.label, runner, inputs=model.signature.inputs, dims=model.dims, model=model)
    folder = Path(tempfile.mkdtemp(prefix="graphkit-side-"))
    unpacked = unpack(Path(target), folder)
    inner = OrtRunner(unpacked or Path(target), optimize=optimize)
    weakref.finalize(inner, shutil.rmtree, folder, ignore_errors=True)
    model = (recognise(unpacked, CaptureRequest()) if unpacked else source).capture(asked)
    runner = NamedRunner(name, inner)
    return Side(name, runner.label, runner, inputs=model.signature.inputs, dims=model.dims, model=model)


def _as_given(model: Model, request: CaptureRequest) -> Model:
    if request.shapes:
        raise BadOption("shapes are given for a Model, which has its own", remedy="leave the shapes out")
    check_dims(request.dims, model.signature.inputs)
    return replace(model, dims=request.dims or model.dims)


# --- frameworks --------------------------------------------------------------------------------------------------


def _framework(source: RunnableSource, name: str, request: CaptureRequest, base: Side | None) -> Side:
    own = replace(request, samples=tuple(s for s in request.samples if base is None or not isinstance(s.value, Path)))
    if base is None or base.inputs is None:
        specs = source.prepare(own)
        inputs = tuple(replace(s, dtype=_PYTHON_NUMBERS.get(s.dtype or "", s.dtype)) for s in specs)
        runner = NamedRunner(name, source)
        return Side(name, runner.label, runner, inputs=inputs, dims=_own_dims(source, request), framework=True)
    specs, partners = _prepared(source, name, replace(own, dims=()), base)
    runner = NamedRunner(name, source, partners)
    known = {partners.get(s.name, s.name) for s in base.inputs}
    alone = {s.name for s in own.samples} - known  # Python numbers that the graph holds as constants
    inputs = tuple(s for s in specs if s.name not in alone)
    dims = _own_dims(source, CaptureRequest())
    return Side(name, runner.label, runner, inputs=inputs, dims=dims, framework=True, partners=partners)


def _own_dims(source: RunnableSource, request: CaptureRequest) -> tuple[DimRange, ...]:
    """Ranges that were asked for, and those that the source itself has: a .pt2 file was exported with them."""
    asked = {d.symbol for d in request.dims}
    return (*request.dims, *(d for d in getattr(source, "dims", ()) if d.symbol not in asked))


def _prepared(
    source: RunnableSource, name: str, request: CaptureRequest, base: Side
) -> tuple[tuple[TensorSpec, ...], dict[str, str]]:
    """Ready to run on the base's inputs: by their names, else by their places."""
    assert base.inputs is not None
    wanted = base.inputs
    try:
        return source.prepare(_asking(request, wanted, {})), {}
    except (UnknownName, ShapeMissing):
        own = _own_names(source, request)
        partners = pair_names([s.name for s in wanted], own) if own else None
        if partners is None:
            raise _mismatch(base, name, [TensorSpec(n) for n in own]) from None
    return source.prepare(_asking(request, wanted, partners)), {a: b for a, b in partners.items() if a != b}


def _asking(request: CaptureRequest, wanted: Sequence[TensorSpec], partners: Mapping[str, str]) -> CaptureRequest:
    """A Python number that is given as a value has no shape."""
    numbers = {s.name for s in request.samples}
    shapes = tuple(replace(s, name=partners.get(s.name, s.name)) for s in wanted if s.name not in numbers)
    samples = tuple(Sample(partners.get(s.name, s.name), s.value) for s in request.samples)
    return replace(request, shapes=shapes, samples=samples)


def _own_names(source: RunnableSource, request: CaptureRequest) -> list[str]:
    """The inputs that it has, or that it cannot do without."""
    try:
        return [s.name for s in source.prepare(replace(request, shapes=(), samples=()))]
    except ShapeMissing as error:
        return list(error.data.get("missing", ()))


def _mismatch(base: Side, name: str, inputs: Sequence[TensorSpec]) -> ShapeMismatch:
    return ShapeMismatch(
        f"{base.name} and {name} take different inputs",
        details=(f"{base.name}: {listed(base.inputs or ())}", f"{name}: {listed(inputs)}"),
        remedy="compare models with the same inputs",
    )


def listed(specs: Sequence[TensorSpec]) -> str:
    """`x: float32[batch, 3], mask`."""
    return ", ".join(s.name if s.dtype is None and s.shape is None else str(s) for s in specs) or "none"


# --- engines -----------------------------------------------------------------------------------------------------


def _engine(path: Path, name: str, trust: bool) -> Side:
    """An engine is a program: only one that graphkit built, as its description says, is run without `--trust`."""
    from graphkit.engine import builder

    header = plan.read(path)
    digest = file_sha256(path)
    facts = _description(path, digest)
    if facts is None and not trust:
        raise UntrustedSource(
            f"{name} is an engine, which is a program, and {path.name}.json does not vouch for it",
            where=str(path.name),
            remedy="keep the .json that was written with the engine beside it; or --trust, if you trust its author",
        )
    inputs = None if facts is None else tuple(map(TensorSpec.from_json, facts["model"]["signature"]["inputs"]))
    dims = _profile(facts, inputs) if facts is not None and inputs is not None else ()
    label = f"{name}: {header.kind} {header.version} (cuda)"
    gpus = builder.visible_gpus()
    if not gpus:
        return Side(name, label, lacks="no CUDA device", inputs=inputs, dims=dims, engine=True)
    _check_target(name, header, gpus[0])
    try:
        backend = builder.choose(_BUILDERS[header.kind])
    except Lacking as error:
        return Side(name, label, lacks=error.message, inputs=inputs, dims=dims, engine=True)
    other = _other_release(header, str(backend.identity()["version"]), facts)
    if other is not None:
        return Side(name, label, lacks=other, inputs=inputs, dims=dims, engine=True)
    runner = NamedRunner(name, builder.EngineRunner(backend, _described(path, header, digest, facts)))
    return Side(name, runner.label, runner, inputs=inputs, dims=dims, engine=True)


def tf32_in(side: Side) -> bool:
    """Whether a side is an engine in which TF32 is allowed, which its outputs' float32 does not say."""
    from graphkit.engine.builder import EngineRunner

    inner = side.runner.inner if isinstance(side.runner, NamedRunner) else None
    return isinstance(inner, EngineRunner) and inner.engine.tf32


def _description(path: Path, digest: str) -> dict[str, Any] | None:
    """The engine's description, if it is of these very bytes."""
    from graphkit.engine import sidecar

    try:
        facts = json.loads(sidecar.path_for(path).read_text(encoding="utf-8"))
        good = facts["schema"] == sidecar.SCHEMA and facts["engine"]["sha256"] == digest
        good = good and isinstance(facts["tf32"], bool)
        inputs = tuple(map(TensorSpec.from_json, facts["model"]["signature"]["inputs"]))
        _profile(facts, inputs)
        _profiles(facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, BadDimRange):
        return None
    return facts if good else None


def _profile(facts: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> tuple[DimRange, ...]:
    """The ranges that an engine was built for, where its description has them."""
    found: dict[str, DimRange] = {}
    for profile in facts.get("profiles") or ():
        for spec in inputs:
            sizes = profile.get(spec.name)
            for axis, dim in enumerate(spec.shape or ()):
                if sizes is not None and isinstance(dim, str) and dim.isidentifier():
                    found.setdefault(dim, DimRange(dim, *(sizes[point][axis] for point in ("min", "opt", "max"))))
    return tuple(found.values())


def _profiles(facts: Mapping[str, Any]) -> list[Profile]:
    from graphkit.engine.profiles import Profile

    return [Profile.from_json(each) for each in facts.get("profiles") or ()]


def _other_release(header: Plan, installed: str, facts: Mapping[str, Any] | None) -> str | None:
    """Why the installed library does not run an engine of another release; None if it may."""
    portable = header.kind == "tensorrt" and (facts is None or facts.get("settings", {}).get("version_compatible"))
    if portable or header.version.split(".")[:3] == installed.split(".")[:3]:  # the fourth part is of the build
        return None
    return f"it was built with {header.kind} {header.version}, which no other release runs; {installed} is installed"


def _check_target(name: str, header: Plan, gpu: str) -> None:
    if header.targets and gpu not in header.targets and "later" not in header.targets:
        raise UnknownTarget(
            f"{name} was built for {', '.join(header.targets)}; this machine's GPU is {gpu}",
            remedy=f"build it for this one too: --cc {','.join((*header.targets, gpu))}",
        )


def _described(path: Path, header: Plan, digest: str, facts: dict[str, Any] | None) -> Engine:
    from graphkit.engine.builder import Engine
    from graphkit.engine.profiles import Profile

    first, *more = _profiles(facts or {}) or [Profile({})]
    return Engine(
        path, header.kind, header.version, header.targets, header.size, digest, "", 0, 0.0,
        bool(facts and facts["tf32"]), first, more_profiles=tuple(more),
    )  # fmt: skip
