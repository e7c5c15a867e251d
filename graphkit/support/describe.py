"""A hit as a finding, in terms of the author's model: names, module path, source line, and what a node reads."""

from __future__ import annotations

from dataclasses import replace

from graphkit.errors import CorruptFile
from graphkit.model import SourceLine
from graphkit.support.result import Finding, NodeFacts, Read
from graphkit.support.rule import Hit, Rule
from graphkit.support.scene import Place, Scene

_TRACE = "pkg.torch.onnx.stack_trace"
_MOST_READS = 8


def finding(scene: Scene, rule: Rule, hit: Hit) -> Finding:
    """What a rule found at one place."""
    place = hit.place
    top = place.top if place is not None else None
    return Finding(
        rule.code,
        rule.title,
        rule.severity,
        hit.message,
        hit.fix or rule.fix,
        facts(scene, place) if place is not None else None,
        hit.value,
        hit.capabilities,
        top=top.index if top is not None and top.graph is scene.graph else None,
    )


def softened(found: Finding) -> Finding:
    """An error that a library which was asked does not mind."""
    if found.severity != "error":
        return found
    return replace(found, severity="warning", said=("the library that was asked takes it",))


def named_in(scene: Scene, text: str) -> list[Place]:
    """Nodes whose names are in a library's words."""
    words = {word.strip(":.,;'\"`()[]{}") for word in text.split()}
    return [p for p in scene.places if len(p.graph.names[p.index]) > 1 and p.graph.names[p.index] in words]


def facts(scene: Scene, place: Place) -> NodeFacts:
    """All that is known of a node."""
    from graphkit.analyze.modules import module_of

    lines = _lines(place)
    first = next((line for line in lines if line.file), None)
    return NodeFacts(
        name=place.graph.names[place.index],
        op=operator(place),
        label=label(place),
        path=_path(place),
        module=next((line.module for line in lines if line.module), "") or module_of(place.graph, place.index),
        source="; ".join(map(str, lines)) or None,
        file=first.file if first is not None else None,
        line=first.line if first is not None else None,
        reads=tuple(_reads(scene, place)),
    )


def operator(place: Place) -> str:
    """`Gelu`, `com.acme::Fancy`."""
    domain = place.graph.domains[place.index]
    return place.op if domain in ("", "ai.onnx") else f"{domain}::{place.op}"


def label(place: Place) -> str:
    """`conv_1 (Conv)`; a node without a name is called after what it makes."""
    name = place.graph.names[place.index]
    made = ", ".join(place.graph.values[v] for v in place.graph.makes[place.index] if v)
    return f"{name} ({operator(place)})" if name else f"{operator(place)} -> {made}"


def _path(place: Place) -> tuple[str, ...]:
    parts: list[str] = []
    while place.around is not None:
        around = place.around
        parts.append(f"{around.graph.names[around.index] or around.op}.{place.branch}")
        place = around
    if place.branch:  # a function's body
        parts.append(place.branch)
    return tuple(reversed(parts))


def _lines(place: Place) -> tuple[SourceLine, ...]:
    """graphkit's own record, else what torch.onnx wrote. Damaged metadata is no reason to say nothing of the node."""
    if place.index not in place.graph.node_metadata:
        return ()
    try:
        lines = place.node.provenance
        trace = "" if lines else place.node.metadata.get(_TRACE, "")
    except CorruptFile:
        return ()
    if lines or not trace:
        return lines
    from graphkit.capture.torch_source_line import line_of

    found = line_of(trace)
    return () if found is None else (found,)


def _reads(scene: Scene, place: Place) -> list[Read]:
    from graphkit.analyze.inference import show

    found = []
    for value in place.graph.reads[place.index][:_MOST_READS]:
        if value:
            tensor = scene.tensor(place.graph, value)
            maker = scene.producer(place.graph, value)
            known = f"{tensor.dtype or '?'} {show(tensor.shape)}"
            found.append(Read(place.graph.values[value], known, label(maker) if maker is not None else ""))
    return found
