"""The second pass: the graph in a newer opset, so that its parts can be written as the operators that exist there.

The history of every operator is that of `onnx.defs`. A version that only takes more types, or has more optional
attributes and inputs, changes nothing for a node that exists; one that changed more has an adapter in
`lift_adapters`. Where neither is so, the graph is lifted as far as it goes, and it is said which node stopped it.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphkit.errors import OpsetNotHonoured
from graphkit.rewrite.lift_adapters import ADAPTERS, LOOSER, WITHOUT_KERNEL, Adapter
from graphkit.rewrite.reading import nodes_of
from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

NEWEST = 24
"""What a graph is lifted to. Attention with a cache, Swish and TensorScatter came with it, which no rule can do
without; nothing that a rule makes is newer. ONNX Runtime 1.32 and the parser of TensorRT-RTX 1.7 take it; both take
newer ones too, but have fewer kernels for them."""

_OLDEST = 7
"""Before it, operators broadcast and train by attributes that say so; such graphs stay what they are."""


def lift(editor: Editor, wanted: int | None) -> None:
    """Lift a model in place: to `wanted`, or else as far towards `NEWEST` as it goes.

    Raises:
        OpsetNotHonoured: the graph cannot be had in the opset that is wanted.
    """
    goal = wanted if wanted is not None else max(NEWEST, editor.opset)
    if wanted is not None and wanted < editor.opset:
        raise OpsetNotHonoured(
            f"the model is written in opset {editor.opset}; it cannot be lowered to {wanted}",
            remedy=f"--opset {editor.opset}, or export it in opset {wanted}",
        )
    even_out(editor, goal, strict=wanted is not None)


def even_out(editor: Editor, goal: int, *, strict: bool = False) -> None:
    """Bring all nodes into one opset: `goal`, or the newest before it that every node can be written in.

    Nodes that come out of functions may be in another one than the model.

    Raises:
        OpsetNotHonoured: that is not `goal`, and `strict`; or not even one opset can be found.
    """
    nodes = [node for node in nodes_of(editor.model.graph) if not node.domain]
    least = max((editor.version(node) for node in nodes), default=editor.opset)
    reached, stopped = goal, None
    for node in nodes:
        limit, why = _limit(editor, node, goal, strict=strict)
        if limit < reached:
            reached, stopped = limit, (node, why)
    if stopped is not None and (strict or reached < least):
        node, why = stopped
        raise OpsetNotHonoured(
            f"node `{node.name}` ({node.op_type}) cannot be written in opset {goal}: {why}",
            remedy=f"--opset {reached}" if reached >= least else "export the model without functions of other opsets",
        )
    if stopped is not None:
        node, why = stopped
        say = Rule("opset", "structure", (), lambda hand, at: hand.miss(at, f"stays in opset {reached}: {why}"), "")
        editor.apply(say, node)
    for node in nodes:
        _lift_node(editor, node, reached)
    editor.model.opset_imports[""] = reached
    editor.opset = reached


def _limit(editor: Editor, node: ir.Node, goal: int, *, strict: bool) -> tuple[int, str]:
    """The newest opset up to `goal` that a node can be written in, and why not the next; unless `strict`, the newest
    in which ONNX Runtime has it too."""
    version = editor.version(node)
    if version == goal:
        return goal, ""
    steps = _steps(node.op_type, version, goal)
    if steps is None:
        return version, "its operator is not known"
    for at, adapter, why in steps:
        if adapter is not None:
            why = adapter.prevents(editor, node, version) or ""
        if not why and not strict and (node.op_type, at) in WITHOUT_KERNEL:
            why = "ONNX Runtime does not have it"
        if why:
            return at - 1, why
    return goal, ""


def _lift_node(editor: Editor, node: ir.Node, goal: int) -> None:
    version = editor.version(node)
    steps = _steps(node.op_type, version, goal) if version != goal else ()
    node.version = None
    while steps:
        at, adapter, _ = steps[0]
        steps = steps[1:]
        for name, value in _old_defaults(node.op_type, at).items():
            if name not in node.attributes:
                editor.set_attribute(node, name, value)
        if adapter is not None:
            operator = node.op_type
            adapter.change(editor, node)
            if node.graph is None:
                return  # it was replaced by nodes that are of the newest form
            if node.op_type != operator:
                steps = _steps(node.op_type, at, goal) or ()


_Steps = tuple[tuple[int, "Adapter | None", str], ...]


@lru_cache(maxsize=4096)
def _steps(op_type: str, version: int, goal: int) -> _Steps | None:
    """The versions of an operator after one opset and up to another: each with its adapter, or what is in the way;
    those that need nothing are left out. None for an operator that ONNX does not know."""
    history = _history().get(op_type)
    if history is None or history[0].since_version > version:
        return None
    found: list[tuple[int, Adapter | None, str]] = []
    for old, new in itertools.pairwise(history):
        if not version < new.since_version <= goal:
            continue
        adapter = ADAPTERS.get((op_type, new.since_version))
        if version < _OLDEST and not _only_more(old, new):
            found.append((new.since_version, None, f"opset {version} is too old"))
        elif adapter is not None:
            found.append((new.since_version, adapter, ""))
        elif (op_type, new.since_version) not in LOOSER and not _only_more(old, new):
            found.append((new.since_version, None, f"{op_type} changed in opset {new.since_version}"))
        elif _old_defaults(op_type, new.since_version) or (op_type, new.since_version) in WITHOUT_KERNEL:
            found.append((new.since_version, None, ""))
    return tuple(found)


@lru_cache(maxsize=1)
def _history() -> dict[str, list[Any]]:
    """Every version of every standard operator, oldest first."""
    import onnx.defs

    found: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, []).append(schema)
    for versions in found.values():
        versions.sort(key=lambda schema: schema.since_version)
    return found


def _only_more(old: Any, new: Any) -> bool:
    """Whether a version only adds to the one before: types, optional attributes, optional inputs at the end."""
    if new.deprecated or any(name not in new.attributes for name in old.attributes):
        return False
    for name, attribute in new.attributes.items():
        before = old.attributes.get(name)
        if before is None and attribute.required:
            return False
        if before is not None and (before.type != attribute.type or (attribute.required and not before.required)):
            return False
    inputs, outputs = [p.option for p in new.inputs], [p.option for p in new.outputs]
    count = len(old.inputs)
    return (
        [p.option for p in old.inputs] == inputs[:count]
        and all(option.name == "Optional" for option in inputs[count:])
        and [p.option for p in old.outputs] == outputs[: len(old.outputs)]
    )


@lru_cache(maxsize=1024)
def _old_defaults(op_type: str, at: int) -> dict[str, Any]:
    """Attributes whose default changed with a version of an operator, with the default before."""
    import onnx.helper

    versions = _history()[op_type]
    place = next(index for index, schema in enumerate(versions) if schema.since_version == at)
    old, new = versions[place - 1], versions[place]
    found = {}
    for name, attribute in old.attributes.items():
        after = new.attributes.get(name)
        if after is None or not attribute.default_value.name:
            continue
        value = onnx.helper.get_attribute_value(attribute.default_value)
        if not after.default_value.name or onnx.helper.get_attribute_value(after.default_value) != value:
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found
