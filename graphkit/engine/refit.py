"""New weights for an engine that was built, without building it again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic
from graphkit.engine import plan, refusal, sidecar, tensorrt
from graphkit.engine.builder import Library
from graphkit.errors import BadOption, BuildFailed, Lacking, UntrustedSource, WeightsMismatch
from graphkit.model import Model, file_sha256, provenance

if TYPE_CHECKING:
    import onnx_ir as ir

_REWRITTEN = re.compile(r"_gk\d+$")
"""How `graphkit.rewrite` ends the names that it gives."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that a refittable engine takes.

    Attributes:
        dtype, shape: What it has to be; None where the ONNX graph has no initializer of that name.
        parameter: Path of the parameter in the source model (`encoder.0.weight`), where the graph kept it, at most
            in another dtype; None for what was computed from parameters: a transposed weight, a folded BatchNorm.
    """

    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    parameter: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
            "parameter": self.parameter,
        }


def weights_of(model: Model, names: Iterable[str]) -> dict[str, Weight]:
    """What is known of an engine's weights: TensorRT calls them as the ONNX file calls its initializers."""
    held = model.ir.graph.initializers
    found: dict[str, Weight] = {}
    for name in names:
        value = held.get(name)
        tensor = value.const_value if value is not None else None
        if value is None or tensor is None:
            found[name] = Weight()
        else:
            shape = tuple(int(n) for n in tensor.shape.numpy())
            found[name] = Weight(refusal.dtype_name(tensor.dtype), shape, _parameter(value))
    return found


def _parameter(value: ir.Value) -> str | None:
    """The parameter that an initializer is, if it is called after a module of one of the nodes that read it, and no
    rewriting made it (transposed, scaled ...), which calls it after the old one."""
    if _REWRITTEN.search(str(value.name)):
        return None
    module, _, _ = str(value.name).rpartition(".")
    lines = (line for node, _ in value.uses() for line in provenance(node))
    return str(value.name) if module and any(line.module == module for line in lines) else None


def refit(engine: Path, weights: Model, output: Path, *, library: Library | None = None) -> Path:
    """Write the engine with the weights of another ONNX model of the same structure, and its description.

    Whether it then computes what that model does is not asked here: see `graphkit.refitting`.

    Args:
        weights: Made by the same command from the new checkpoint, so that its weights have the same names.
        library: The child that has TensorRT; the shared one, if None.

    Raises:
        UntrustedSource: no description of graphkit's vouches for the engine.
        BadOption: it takes no weights, or is none of TensorRT's.
        WeightsMismatch: the model has not all of them, or of another shape or dtype.
        BuildFailed: TensorRT refused, with its reason.
        ExtraMissing, GpuRequired: there is no TensorRT here, or no GPU.
    """
    facts, digest = _vouched(engine)
    _check(weights, facts["weights"], engine.name)
    if library is None:
        lacks: Lacking | None = tensorrt.TensorRTBuilder().available()
        if lacks is not None:
            raise lacks
        library = tensorrt.library()
    with atomic.replacing(output) as temporary:
        graph = temporary.with_name(f"{temporary.name}.onnx")
        try:
            files = weights.save(graph, durable=False)
            reply = library.worker.call(
                "graphkit.engine.trt_engine:refit",
                engine_path=str(engine),
                model_path=str(graph),
                output_path=str(temporary),
                rtx=library.rtx,
                sha256=digest,
            )
            model_sha256 = file_sha256(files[0])
        finally:
            for left in (graph, *temporary.parent.glob(f"{graph.stem}.*.data")):
                left.unlink(missing_ok=True)
        refusal.check_written(reply)
        if reply["status"] != "refitted":
            raise BuildFailed(
                f"TensorRT did not refit {engine.name}: {next(iter(reply['lines']), 'it gave no reason')}",
                details=tuple(f"no weights for `{name}`" for name in reply["missing"][:8]),
                remedy="convert the new checkpoint with the command that made the engine's own ONNX file",
            )
        header = plan.read(temporary)
        described = {
            **facts,
            "engine": {**facts["engine"], "name": output.name, "sha256": file_sha256(temporary), "size": header.size},
            "model": {**facts["model"], "sha256": model_sha256, "origin": weights.origin.to_json()},
        }
    text = json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic.write_bytes(sidecar.path_for(output), (text + "\n").encode())
    return output


def _vouched(engine: Path) -> tuple[dict[str, Any], str]:
    """The engine's description and digest, if the description is of this very engine."""
    header, digest = plan.read(engine), file_sha256(engine)
    path = sidecar.path_for(engine)
    try:
        facts = json.loads(path.read_bytes())
        good = facts["schema"] == sidecar.SCHEMA and facts["engine"]["sha256"] == digest
        good = good and isinstance(facts["model"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise UntrustedSource(
            f"{engine.name} is an engine, which is a program, and {path.name} does not vouch for it",
            remedy="keep the .json that was written with the engine beside it",
        )
    if header.kind != "tensorrt" or not facts.get("weights"):
        raise BadOption(
            f"{engine.name} takes no new weights",
            remedy="build it with --backend tensorrt --refittable, or --strip-weights",
        )
    return facts, digest


def _check(model: Model, wanted: Mapping[str, Mapping[str, Any]], name: str) -> None:
    here = weights_of(model, wanted)
    bad = []
    for weight, facts in wanted.items():
        found, asked = here[weight].to_json(), {"dtype": facts.get("dtype"), "shape": facts.get("shape")}
        if asked["dtype"] is None:
            continue  # the engine's own name for something that is no initializer: TensorRT finds it, or says so
        if found["dtype"] is None:
            bad.append(f"`{weight}` is missing")
        elif (found["dtype"], found["shape"]) != (asked["dtype"], asked["shape"]):
            bad.append(f"`{weight}` is {found['dtype']}{found['shape']}, not {asked['dtype']}{asked['shape']}")
    if bad:
        raise WeightsMismatch(
            f"{len(bad)} of the {len(wanted)} weights of {name} do not fit: {bad[0]}",
            details=tuple(bad[:20]),
            remedy="convert the new checkpoint with the command that made the engine's own ONNX file",
        )
