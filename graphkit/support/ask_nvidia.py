"""NVIDIA's parser and builder asked about a model, and their words as findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit.engine.profiles import make_profile
from graphkit.errors import BadRequest, GraphkitError
from graphkit.support import culprit, parser, rules_asked
from graphkit.support.describe import finding, named_in, softened
from graphkit.support.parser import Parsed, Refusal
from graphkit.support.result import Asked, Finding
from graphkit.support.rule import TARGETS, Hit, Rule, rule_of
from graphkit.support.scene import Place, Scene
from graphkit.support.subject import CheckRequest, Subject

if TYPE_CHECKING:
    from graphkit.model import Model

Key = tuple[int, int]
"""A node: identity of its graph, and its position there."""


def ask(
    subject: Subject, scene: Scene, request: CheckRequest, hits: list[tuple[Rule, Hit]], path: Path
) -> tuple[list[Finding], tuple[Asked, ...]]:
    """The rules' hits in the light of what the parser and, where it cannot know, the builder say.

    Args:
        path: Where to save the model for them.

    Raises:
        BadRequest: the builder has to be asked, and a range is missing or does not hold.
        Lacking, OutOfMemory, TimedOut: what they say.
    """
    subject.model.save(path, durable=False)
    parsed = parser.parse(request.target, path)
    found = _with_parser(scene, hits, parsed)
    first = Asked("parser", True, f"{TARGETS[request.target]} {parsed.version}")
    why_not = _why_no_build(subject, scene, request, found)
    if why_not is not None:
        if not any(f.severity == "error" for f in found):
            found.extend(_contradictions(subject, scene))
        return found, (first, Asked("builder", False, why_not))
    error = parser.build(request.target, subject.model, path, subject.ranges, request.capabilities)
    if error is None:
        built = Asked("builder", True, "an engine was built and thrown away")
        return [softened(f) for f in found], (first, built)
    if not any(f.severity == "error" for f in found):  # else a rule says why, and where
        found.extend(_build_findings(subject, scene, request, error))
    return found, (first, Asked("builder", True, "it could not build"))


def _contradictions(subject: Subject, scene: Scene) -> Iterator[Finding]:
    """Sizes that do not fit, by ONNX's strict shape inference; nothing where a dimension has no range.

    Raises:
        BadRequest: they do not fit at some of the sizes that were given.
    """
    try:
        make_profile(subject.model.signature, subject.ranges)
    except BadRequest:
        return
    error = parser.contradiction(subject.model, subject.ranges)
    if error is not None:
        place = next(iter(named_in(scene, error.message)), None)
        rule = rule_of(rules_asked.CONTRADICTION)
        yield replace(finding(scene, rule, Hit(error.message, place)), said=tuple(error.details))


# --- the parser --------------------------------------------------------------------------------------------------


def _with_parser(scene: Scene, hits: list[tuple[Rule, Hit]], parsed: Parsed) -> list[Finding]:
    """The rules' findings with the parser's words, and what it refuses that no rule explains.

    A rule that says what the parser refuses is only a warning where the parser takes the model.
    """
    words, rest = _words(scene, parsed)
    found: list[Finding] = []
    explained: set[Key] = set()
    for rule, hit in hits:
        each = finding(scene, rule, hit)
        key = _key(hit.place) if hit.place is not None else None
        if rule.severity == "error" and key is not None and key in words:
            explained.add(key)
            each = replace(each, said=tuple(w for w in words[key] if not w.endswith(" has no such operator")))
        elif rule.seen_by == "parser" and parsed.taken:
            each = softened(each)
        found.append(each)
    found.extend(_shape_inputs(scene, hits, parsed))
    known = any(f.severity == "error" for f in found)  # an error without a node speaks of what a rule names
    rule = rule_of(rules_asked.PARSER)
    for place in scene.places:
        if _key(place) in words and _key(place) not in explained:
            said = words[_key(place)]
            found.append(replace(finding(scene, rule, Hit(said[0], place)), said=tuple(said[1:])))
    found.extend(finding(scene, rule, Hit(each.reason)) for each in rest if not known)
    return found


def _words(scene: Scene, parsed: Parsed) -> tuple[dict[Key, list[str]], list[Refusal]]:
    """What the parser says of each node, and of the model."""
    named: dict[tuple[str, str], list[Place]] = {}
    for place in scene.places if parsed.refusals else ():
        named.setdefault((place.graph.names[place.index], place.op), []).append(place)
    words: dict[Key, list[str]] = {}
    rest: list[Refusal] = []
    for each in parsed.refusals:
        found = _find(scene, named.get((each.name, each.operator), []), each)
        if found is None:
            rest.append(each)
        else:
            words.setdefault(_key(found), []).append(each.reason)
    return words, rest


def _key(place: Place) -> Key:
    return id(place.graph), place.index


def _find(scene: Scene, same: list[Place], refusal: Refusal) -> Place | None:
    """The node that the parser means: the only one of its name and operator, else that at its position in the main
    graph, if the operator agrees."""
    if refusal.name and len(same) == 1:
        return same[0]
    at, graph = refusal.index, scene.graph
    return Place(graph, at) if 0 <= at < len(graph) and graph.ops[at] == refusal.operator else None


def _shape_inputs(scene: Scene, hits: list[tuple[Rule, Hit]], parsed: Parsed) -> Iterator[Finding]:
    known = {hit.value for rule, hit in hits if rule.code == "GKC121"}
    for name in parsed.shapes:
        if name not in known:
            yield finding(scene, rule_of("GKC121"), Hit(f"the values of input `{name}` decide shapes", value=name))


# --- the builder -------------------------------------------------------------------------------------------------

_DOUBTFUL = ("If", "Loop", "Scan", "Attention", "NonMaxSuppression")
"""What the parser is known to take, and the builder not always: it does not look into how branches nest."""


def _why_no_build(subject: Subject, scene: Scene, request: CheckRequest, found: list[Finding]) -> str | None:
    """None if the builder has to be asked, for the parser cannot know; else why it need not, or cannot be."""
    errors = [f for f in found if f.severity == "error"]
    if any(rule_of(f.code).seen_by != "builder" for f in errors):
        return "there is an error already"
    if request.target != "rtx":
        return "TensorRT measures its kernels while it builds, which takes minutes"
    doubts = bool(errors) or any(True for _ in scene.of(*_DOUBTFUL))
    try:
        profile = make_profile(subject.model.signature, subject.ranges)
    except BadRequest as error:
        if doubts and not errors:
            raise
        return f"{error.message}: {error.remedy}"
    moves = any(low != high for low, _, high in profile.shapes.values())
    if doubts or moves or request.capabilities:
        return None
    return "the parser's word is enough for a graph of fixed shapes without branches"


def _build_findings(subject: Subject, scene: Scene, request: CheckRequest, error: GraphkitError) -> Iterator[Finding]:
    """The builder's refusal, at the nodes that it names, else at those that it is known to stumble over."""
    rule = rule_of(rules_asked.BUILDER)
    targets = error.data.get("targets", {})
    bad = tuple(c for c, fine in targets.items() if not fine) if any(targets.values()) else ()
    suspects: tuple[Place, ...] = tuple(named_in(scene, " ".join((error.message, *error.data.get("lines", ())))))
    if not suspects:
        suspects = _culprits(subject, scene, request, error)
    where = f"one of {len(suspects)} nodes is why: " if len(suspects) > 1 else ""
    for place in suspects or (None,):
        hit = Hit(where + error.message, place, capabilities=bad)
        yield replace(finding(scene, rule, hit), said=tuple(error.details))


def _culprits(subject: Subject, scene: Scene, request: CheckRequest, error: GraphkitError) -> tuple[Place, ...]:
    def fails(part: Model, path: Path) -> bool:
        symbols = part.signature.symbols
        dims = tuple(d for d in subject.ranges if d.symbol in symbols)
        said = parser.build(request.target, part, path, dims, request.capabilities)
        return said is not None and said.message == error.message

    return culprit.find(subject.model, scene, [p for p in scene.of(*_DOUBTFUL) if p.graph is scene.graph], fails)
