"""What TensorRT said no to, in terms of the user's model: node, module path, source line, remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graphkit.engine.profiles import node_label, node_source
from graphkit.errors import BadDimRange, BuildFailed, GraphkitError, TargetUnsupported
from graphkit.model import Finding, Model

if TYPE_CHECKING:
    import onnx_ir as ir

Reply = Mapping[str, Any]


def check(reply: Reply, model: Model, title: str) -> None:
    """Raise what a child's reply means.

    Raises:
        TargetUnsupported: the parser refused the model, or the network's inputs and outputs are not the model's.
        BuildFailed: the build failed.
        BadDimRange: the engine cannot run at a profile's min, opt or max.
        OSError: as `check_written`.
    """
    check_written(reply)
    match reply["status"]:
        case "refused" if any(error["operator"] for error in reply["errors"]):
            raise _unsupported_nodes(reply["errors"], model, title)
        case "refused" if reply.get("inputs"):
            raise TargetUnsupported(
                f"{title} needs to know which values such an input takes: {reply['reason']}",
                remedy="make it a constant of the model, or compute the shape from another input's shape",
            )
        case "refused":
            reasons = [reason_of(error, title) for error in reply["errors"]] or [reply["reason"]]
            raise TargetUnsupported(
                f"{title} cannot take the model: {reasons[0]}",
                details=tuple(reasons[1:]),
                remedy="an engine needs an operator between each input and output, and types that the target has",
            )
        case "failed":
            raise _build_failed(reply, model, title)
    _check_signature(reply, model, title)
    _check_profiles(reply, model, title)


def check_written(reply: Reply) -> None:
    """Raise the `OSError` with which a child could not write a file, for `atomic.replacing` to name the file."""
    if reply["status"] == "unwritten":
        raise OSError(reply["errno"], os.strerror(reply["errno"]))


def findings(reply: Reply, model: Model, title: str) -> tuple[Finding, ...]:
    """What the library warned of during a build that went well."""
    found = [Finding("library-warning", f"{title}: {line}") for line in reply["warnings"] if not _NOISE.search(line)]
    doubles = [node for node in model.ir.graph.all_nodes() if any(_is_double(v) for v in node.outputs)]
    if reply["unfit"]:
        line = _deciding(next(iter(reply["unfit"].values())))
        message = f"the engine's header says 8.0 and later, but {', '.join(reply['unfit'])} cannot run it: {line}"
        found.append(Finding("target-lacks-dtype", message, remedy="name the targets that can with --cc"))
    if doubles:
        first = doubles[0]
        message = f"{title} computes float64 as float32: {len(doubles)} nodes, the first is {node_label(first)}"
        found.append(Finding("float64-as-float32", message, node_source(first), "convert the model to float32 first"))
    return tuple(found)


# The engine's binding of an int64 input is int64 since TensorRT 10; the advice is for its predecessors.
# A dead input is reported twice, once in terms of NVIDIA's own passes.
_NOISE = re.compile(r"Make sure (input|output) .* has Int64 binding|^\[RemoveDeadLayers\]")


def dtype_name(dtype: ir.DataType) -> str:
    """`float32` for FLOAT, as in a signature."""
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def _is_double(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name == "DOUBLE"


# --- the parser --------------------------------------------------------------------------------------------------


def _unsupported_nodes(errors: list[dict[str, Any]], model: Model, title: str) -> TargetUnsupported:
    found = [(error, _find(error, model)) for error in errors]
    operators = sorted({str(error["operator"]) for error in errors if error["operator"]})
    first_source = next((source for _, node in found if (source := node_source(node))), None)
    count = f"{len({error['index'] for error in errors})} of {model.node_count} nodes"
    return TargetUnsupported(
        f"{title} cannot take {count}: {', '.join(operators)}",
        where=first_source,
        details=tuple(_line(error, node, title) for error, node in found),
        remedy="replace these operators in the model, or keep them outside the engine: graphkit check --partition DIR",
        data={"nodes": [_facts(error, node, title) for error, node in found]},
    )


def _find(error: Mapping[str, Any], model: Model) -> ir.Node | None:
    """The node that the parser means: by name, else by its place in the main graph, if the operator agrees."""
    operator = error["operator"]
    named = [n for n in model.ir.graph.all_nodes() if n.name == error["name"] and n.op_type == operator]
    if error["name"] and len(named) == 1:
        return named[0]
    top = list(model.ir.graph)
    index = error["index"]
    return top[index] if 0 <= index < len(top) and top[index].op_type == operator else None


def _line(error: Mapping[str, Any], node: ir.Node | None, title: str) -> str:
    label = node_label(node) if node is not None else f"{error['name'] or 'node'} ({error['operator']})"
    source = node_source(node)
    return f"{label}: {reason_of(error, title)}" + (f", from {source}" if source else "")


def reason_of(error: Mapping[str, Any], title: str) -> str:
    """What the parser means; it quotes a C++ assertion: `false`, `x && "why"`, `Assertion failed: x: why`."""
    text = str(error["reason"]).strip()
    if "Plugin not found" in text or (text in ("", "false") and error["code"] == "UNSUPPORTED_NODE"):
        return f"{title} has no such operator"
    for form in (r'.* && "(.+)"$', r"Assertion failed: .*?: (.+)$"):
        if said := re.match(form, text, re.DOTALL):
            return said[1]
    return text or str(error["code"])


def _facts(error: Mapping[str, Any], node: ir.Node | None, title: str) -> dict[str, Any]:
    return {
        "name": node.name if node is not None else error["name"],
        "operator": error["operator"],
        "code": error["code"],
        "reason": reason_of(error, title),
        "functions": error["functions"],
        "source": node_source(node),
    }


def _check_signature(reply: Reply, model: Model, title: str) -> None:
    """float64 inputs and outputs become float32 without a word; an input that is an output gets another name."""
    signature = model.signature
    for role, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        real = reply[role]
        for spec in specs:
            if spec.name not in real:
                raise TargetUnsupported(
                    f"the engine of {title} has no {role[:-1]} `{spec.name}`; it has {', '.join(real)}",
                    remedy="give the tensor a node of its own, such as Identity",
                )
            if spec.dtype is not None and real[spec.name] != spec.dtype:
                raise TargetUnsupported(
                    f"{title} turns {role[:-1]} `{spec.name}` from {spec.dtype} into {real[spec.name]}",
                    remedy=f"convert the model so that `{spec.name}` is {real[spec.name]}, and say so to its users",
                )


def _check_profiles(reply: Reply, model: Model, title: str) -> None:
    """What the library builds with a warning, and would refuse to run at the sizes that were asked for."""
    for line in reply["warnings"]:
        if found := _NOT_CONSISTENT.match(line):
            raise _bad_sizes(found[1], _SOURCE_OF_NVIDIA.sub("", found[2].split(" Condition ")[0]), model, title)


def _bad_sizes(point: str, said: str, model: Model, title: str) -> BadDimRange:
    return BadDimRange(
        f"{title}: the graph does not hold at the {point.lower()} sizes: {said}",
        where=next((s for n in _named_in(said, model) if (s := node_source(n))), None),
        remedy="change the --dim ranges: the model's own shapes do not allow these sizes",
    )


# --- the build ---------------------------------------------------------------------------------------------------


def _build_failed(reply: Reply, model: Model, title: str) -> GraphkitError:
    alone: Mapping[str, list[str] | None] = reply["targets"]
    bad = {target: _deciding(lines) for target, lines in alone.items() if lines is not None}
    good = [target for target, lines in alone.items() if lines is None]
    deciding = next(iter(bad.values()), None) or _deciding(reply["lines"])
    where = next((s for n in _named_in(deciding, model) if (s := node_source(n))), None)
    if point := _PROFILE_POINT.search(deciding):
        return _bad_sizes(point[1] or point[2], deciding, model, title)
    targets = ", ".join(bad or (reply["asked"] if len(reply["asked"]) == 1 else ()))
    return BuildFailed(
        f"{title} {reply['version']} cannot build the engine{f' for {targets}' if targets else ''}: {deciding}",
        where=where,
        details=tuple(f"{target}: {line}" for target, line in bad.items()) if len(bad) > 1 else (),
        remedy=f"--cc {','.join(good)} builds" if good else _remedy(deciding),
        data={
            "targets": {target: lines is None for target, lines in alone.items()},
            "reasons": bad,
            "lines": list(reply["lines"]),
        },
    )


# Without a GPU nearly every failure is followed by a complaint that there is no CUDA driver, which decides nothing.
_SECONDARY = re.compile(r"cudaError 35|CUDA driver version is insufficient")
_SOURCE_OF_NVIDIA = re.compile(r"\s*\(?\bIn \S+ at /_src/\S+\s*$")
_NOT_CONSISTENT = re.compile(r"Profile k(MIN|OPT|MAX) values are not self-consistent\.\s*(.*)", re.DOTALL)
_PROFILE_POINT = re.compile(r"\bk(MIN|OPT|MAX) values for profile|^Shape provided for (min|opt|max)\b")


def _deciding(lines: list[str]) -> str:
    primary = [line for line in lines if not _SECONDARY.search(line)] or lines or ["it gave no reason"]
    return _SOURCE_OF_NVIDIA.sub("", primary[0].strip().splitlines()[0])


def _named_in(line: str, model: Model) -> Iterator[ir.Node]:
    words = {word.rstrip(":.,;") for word in re.split(r"[\s'\"\[\]{}()]+|\.\.\.", line)}
    return (node for node in model.ir.graph.all_nodes() if node.name and node.name in words)


def _remedy(line: str) -> str:
    if "Turing" in line or "SM75" in line:
        return "7.5 builds with float16 weights only: convert the model to float16, or name 8.0 and later with --cc"
    if "HW-specific datatypes" in line:
        return "name newer targets with --cc, or use a data type that this target has"
    if "workspace limit" in line:
        return "give more with --workspace MIB, or leave it out"
    return "stop at ONNX with --to onnx, which ONNX Runtime can run, and report the line above to NVIDIA"
