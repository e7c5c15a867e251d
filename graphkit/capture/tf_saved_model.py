"""A SavedModel folder: scanned as a protobuf, then loaded, and one of its signatures taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphkit.capture import tf_unsafe_ops
from graphkit.capture.request import CaptureRequest
from graphkit.capture.tf_callee import Callee, callee_of, of_concrete
from graphkit.capture.tf_file import versions_in
from graphkit.capture.tf_slots import optimizer_slots
from graphkit.capture.tf_trace import sentence
from graphkit.capture.tf_unsafe_ops import CHECKPOINT, UnsafeOp
from graphkit.errors import BadOption, CorruptFile, FileMissing, NotAModel, UnknownName
from graphkit.model import Finding

_AGAIN = "copy or save it again, with its variables folder"
_INITIALISER = "__saved_model_init_op"


def load(path: Path, request: CaptureRequest) -> tuple[Callee, Path, tuple[Finding, ...]]:
    """A signature of a SavedModel, the folder it is in, and what was noticed.

    Args:
        path: A SavedModel, or a folder of numbered ones, of which the newest is taken.
        request: `signature` names one of several; `trust` lets operations pass that reach files or Python.

    Raises:
        CorruptFile, FileMissing: damaged, or without its variables.
        UntrustedSource: it holds operations that reach out of the graph. Nothing was loaded.
        BadOption: it has several signatures, and none is named. `UnknownName`: it has none of this name.
        NotAModel: nothing in it can be called.
    """
    folder, findings = _newest(path)
    meta = _meta_graph(folder)
    if not request.trust:
        tf_unsafe_ops.refuse(_unsafe(meta), path.name)
    _check_variables(folder, meta)
    loaded = _load(folder, meta)
    callee = _chosen(loaded, request.signature or _only_one(meta), path.name)
    return replace(callee, kind="SavedModel", held=loaded), folder, findings


def _newest(path: Path) -> tuple[Path, tuple[Finding, ...]]:
    if (path / "saved_model.pb").is_file():
        return path, ()
    versions = versions_in(path)
    if not versions:
        raise FileMissing(f"{path.name} holds no SavedModel any more", remedy=_AGAIN)
    others = ", ".join(v.name for v in versions[:-1])
    finding = Finding(
        "version",
        f"version {versions[-1].name} was taken, the newest in {path.name}" + (f"; not {others}" if others else ""),
        remedy="name the folder of another version",
    )
    return versions[-1], (finding,)


def _meta_graph(folder: Path) -> Any:
    """The one for serving, parsed and not loaded."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    data = (folder / "saved_model.pb").read_bytes()
    try:
        graphs = list(saved_model_pb2.SavedModel.FromString(data).meta_graphs)
    except DecodeError as error:
        raise CorruptFile(f"saved_model.pb in {folder.name} is damaged: {sentence(error)}", remedy=_AGAIN) from error
    if not graphs:
        what = "is empty" if not data else "holds no graph"
        raise CorruptFile(f"saved_model.pb in {folder.name} {what}", remedy=_AGAIN)
    return next((g for g in graphs if "serve" in g.meta_info_def.tags), graphs[0])


# --- what it would run ---------------------------------------------------------------------------------------------


def _unsafe(meta: Any) -> Iterator[UnsafeOp]:
    """Operations that reach out of the graph; those of a checkpoint only where something else than the saver calls
    them."""
    nodes, functions = _live(meta)
    for op in tf_unsafe_ops.unsafe_ops(meta.graph_def.node):
        if not CHECKPOINT.match(op.op) or op.node in nodes:
            yield op
    for function in meta.graph_def.library.function:
        for op in tf_unsafe_ops.unsafe_ops(function.node_def, function.signature.name):
            if not CHECKPOINT.match(op.op) or function.signature.name in functions:
                yield op


def _live(meta: Any) -> tuple[set[str], set[str]]:
    """Nodes and functions that a signature, an initialiser, or an object of the model reaches."""
    by_name = {n.name: n for n in meta.graph_def.node}
    library = {f.signature.name: f for f in meta.graph_def.library.function}
    saver = {meta.saver_def.save_tensor_name, meta.saver_def.restore_op_name, meta.saver_def.filename_tensor_name}
    roots = [t.name for s in meta.signature_def.values() for t in s.outputs.values()]
    for name, collection in meta.collection_def.items():
        if name != "savers":
            roots.extend(collection.node_list.value)
    pending = [by_name[n] for r in roots if (n := _node(r)) in by_name and r not in saver]
    nodes: set[str] = set()
    functions: set[str] = set()
    waiting = [f for f in meta.object_graph_def.concrete_functions if not _CHECKPOINT_FUNCTION.match(f)]
    while pending or waiting:
        while pending:
            node = pending.pop()
            if node.name in nodes:
                continue
            nodes.add(node.name)
            waiting.extend(_functions_of(node))
            pending.extend(by_name[n] for i in node.input if (n := _node(i)) in by_name)
        name = waiting.pop() if waiting else ""
        if name in library and name not in functions:
            functions.add(name)
            waiting.extend(f for node in library[name].node_def for f in _functions_of(node))
    return nodes, functions


_CHECKPOINT_FUNCTION = re.compile(r"^__inference__traced_(save|restore)_\d+$")


def _functions_of(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (f.name for f in value.list.func)


def _node(reference: str) -> str:
    return reference.lstrip("^").partition(":")[0]


# --- loading -------------------------------------------------------------------------------------------------------


def _check_variables(folder: Path, meta: Any) -> None:
    """TensorFlow 2 always writes a checkpoint, TensorFlow 1 where there is a variable."""
    needed = bool(meta.saver_def.restore_op_name) or len(meta.object_graph_def.nodes) > 0
    if not needed:
        return
    variables = folder / "variables"
    if not (variables / "variables.index").is_file():
        raise FileMissing(f"{folder.name} has no variables/variables.index: its weights are missing", remedy=_AGAIN)
    if not list(variables.glob("variables.data-*")):
        raise FileMissing(f"{folder.name} has no variables/variables.data-*: its weights are missing", remedy=_AGAIN)


def _load(folder: Path, meta: Any) -> Any:
    import tensorflow as tf

    try:
        with tf.device("/cpu:0"), optimizer_slots():
            return tf.saved_model.load(str(folder), tags=list(meta.meta_info_def.tags) or None)
    except Exception as error:  # whatever the bytes lead TensorFlow to
        raise CorruptFile(f"TensorFlow cannot load {folder.name}: {sentence(error)}", remedy=_AGAIN) from error


def _only_one(meta: Any) -> str | None:
    """The signature to take where all of them are the same function, as Keras exports `serve` and `serving_default`;
    None where they differ."""
    library = {f.signature.name: f for f in meta.graph_def.library.function}
    nodes = {n.name: n for n in meta.graph_def.node}

    def same(signature: Any) -> Any:
        sides = (signature.inputs, signature.outputs)
        tensors = [[(k, s[k].dtype, s[k].tensor_shape.SerializeToString()) for k in sorted(s)] for s in sides]
        called = [f for t in signature.outputs.values() for f in _functions_of(nodes[_node(t.name)])]
        return tensors, sorted({inner for f in called for n in library[f].node_def for inner in _functions_of(n)})

    signatures = {k: v for k, v in meta.signature_def.items() if k != _INITIALISER}
    if "serving_default" not in signatures or len(signatures) < 2:
        return None
    wanted = same(signatures["serving_default"])
    alike = bool(wanted[1]) and all(same(s) == wanted for s in signatures.values())
    return "serving_default" if alike else None


def _chosen(loaded: Any, wanted: str | None, name: str) -> Callee:
    signatures = {k: v for k, v in getattr(loaded, "signatures", {}).items() if k != _INITIALISER}
    if wanted is not None:
        if wanted not in signatures:
            known = ", ".join(f"`{k}`" for k in signatures)
            raise UnknownName(
                f"--signature {wanted}: {name} has no such signature",
                remedy=f"it has {known}" if known else "it has none",
            )
        return of_concrete(signatures[wanted], "SavedModel")
    if len(signatures) > 1:
        raise BadOption(
            f"{name} has {len(signatures)} signatures: {', '.join(f'`{k}`' for k in signatures)}",
            details=tuple(f"`{k}` takes {_inputs(v)}" for k, v in signatures.items()),
            remedy=f"--signature {next(iter(signatures))}",
            data={"signatures": list(signatures)},
        )
    if signatures:
        return of_concrete(next(iter(signatures.values())), "SavedModel")
    return _without_signature(loaded, name)


def _without_signature(loaded: Any, name: str) -> Callee:
    """What `tf.saved_model.save` wrote without signatures: the object itself, where it was called in one way."""
    function = getattr(loaded, "__call__", None)  # noqa: B004 - the restored function is wanted
    traces = getattr(function, "concrete_functions", None)
    if traces is not None and len(traces) == 1:
        return of_concrete(traces[0], "SavedModel")
    callee = callee_of(function) if function is not None and traces is None else None
    if callee is not None:
        return callee
    found = [n for n in dir(loaded) if hasattr(getattr(loaded, n, None), "concrete_functions")]
    raise NotAModel(
        f"{name} has no signature" + (f", and {len(traces)} traces of its function" if traces else ""),
        details=(f"its functions: {', '.join(found)}",) if found else (),
        remedy="save it with signatures=...: tf.saved_model.save(model, path, signatures=model.function)",
    )


def _inputs(concrete: Any) -> str:
    return ", ".join(str(s) for s in of_concrete(concrete, "").declared) or "nothing"
