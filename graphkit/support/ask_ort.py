"""ONNX Runtime asked about a model, and its words as findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphkit.support import ort, rules_asked
from graphkit.support.describe import finding, named_in, softened
from graphkit.support.result import Asked, Finding
from graphkit.support.rule import Hit, rule_of
from graphkit.support.scene import Scene
from graphkit.support.subject import Subject


def ask(subject: Subject, scene: Scene, path: Path) -> tuple[list[Finding], Asked]:
    """What ONNX Runtime has against a model, which is saved to `path` for it."""
    missing = [finding(scene, rule_of(rules_asked.ORT_OPERATOR), hit) for hit in ort.unknown(scene)]
    subject.model.save(path, durable=False)
    said = ort.load(path)
    asked = Asked("onnxruntime", True, ort.release())
    if said is None:  # it has the last word: what it loads, it knows
        return [softened(f) for f in missing], asked
    if missing:
        return [replace(f, said=(said,)) if i == 0 else f for i, f in enumerate(missing)], asked
    named = named_in(scene, said)
    hits = [Hit(said, place) for place in named] or [Hit(said)]
    return [finding(scene, rule_of(rules_asked.ORT_LOAD), hit) for hit in hits], asked
