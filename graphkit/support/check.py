"""`check`: will a target build or load a model? Every node that stands in the way, and what to do about it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphkit.errors import BadOption, UnknownTarget
from graphkit.support.describe import finding
from graphkit.support.result import Asked, CheckResult, Finding
from graphkit.support.rule import TARGETS, Severity, chosen, rules
from graphkit.support.scene import Scene
from graphkit.support.subject import CheckRequest as CheckRequest
from graphkit.support.subject import Subject


def check(source: Any, target: str | CheckRequest) -> CheckResult:
    """Whether a target will take a model.

    Args:
        source: Anything that graphkit captures; an ONNX file is taken as it is.
        target: `trt`, `rtx`, `ort`, or a whole request.

    Raises:
        UnknownTarget, BadOption: there is no such target, compute capability or rule.
        GraphkitError: the source cannot be read or captured; a range is missing or does not fit it.

    Example:
        >>> check("model.onnx", "rtx").answer
        'yes'
    """
    request = CheckRequest(target) if isinstance(target, str) else target
    _check_request(request)
    is_shown = chosen(request.select, request.ignore)
    subject = Subject(source, request)
    scene = Scene(subject.view, request.target, request.capabilities)
    found, asked = _examine(subject, scene, request)
    errors = [f for f in found if f.severity == "error"]
    result = CheckResult(
        source=subject.name,
        target=request.target,
        answer="no" if errors else "yes",
        static=not any(a.ran and a.who != "rules" for a in asked),
        findings=tuple(f for f in _ordered(found) if is_shown(f.code)),
        hidden=sum(not is_shown(f.code) for f in found),
        asked=asked,
        capabilities={
            c: not any(not f.capabilities or c in f.capabilities for f in errors) for c in request.capabilities
        },
        nodes=len(scene.places),
        refused=len({f.node for f in errors if f.node is not None}),
        producer=" ".join(filter(None, subject.view.producer)),
    )
    if request.partition is None:
        return result
    from graphkit.support.partition import cut_out

    refused = {f.top for f in errors if f.top is not None}
    return replace(result, partitions=cut_out(subject.model, scene, refused, request.partition))


_CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")
"""Of TensorRT 10 and 11, and so of TensorRT-RTX at most, whose own list is asked where it is installed."""


def _check_request(request: CheckRequest) -> None:
    if request.target not in TARGETS:
        raise UnknownTarget(f"unknown target {request.target!r}", remedy=f"--target {' or --target '.join(TARGETS)}")
    if request.capabilities and request.target == "ort":
        raise BadOption("--cc means nothing for ONNX Runtime on the CPU", remedy="leave --cc out, or --target rtx")
    for capability in request.capabilities:
        if capability not in _CAPABILITIES:
            raise UnknownTarget(
                f"{TARGETS[request.target]} builds for no compute capability {capability!r}",
                remedy=f"--cc with any of {','.join(_CAPABILITIES)}",
            )
    if len(set(request.capabilities)) != len(request.capabilities):
        raise UnknownTarget(
            f"a compute capability is named twice: {','.join(request.capabilities)}", remedy="name each one once"
        )
    if request.capabilities:
        from graphkit.support import parser

        parser.check_capabilities(request.target, request.capabilities)


def _examine(subject: Subject, scene: Scene, request: CheckRequest) -> tuple[list[Finding], tuple[Asked, ...]]:
    """What the rules find, and what the target's library says, where it is here."""
    mine = [rule for rule in rules() if request.target in rule.targets]
    by_rules = Asked("rules", True, f"{len(mine)} rules")
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        path = Path(folder, "model.onnx")
        if request.target == "ort":
            from graphkit.support import ask_ort

            said, asked = ask_ort.ask(subject, scene, path)
            return [*(finding(scene, r, hit) for r in mine for hit in r.find(scene)), *said], (by_rules, asked)
        from graphkit.support import ask_nvidia, parser

        lacks = parser.lack(request.target)
        if lacks is None:
            parser.warm_up(request.target)
        hits = [(rule, hit) for rule in mine for hit in rule.find(scene)]
        if lacks is not None:
            absent = (Asked("parser", False, lacks.message), Asked("builder", False, lacks.message))
            return [finding(scene, *each) for each in hits], (by_rules, *absent)
        found, both = ask_nvidia.ask(subject, scene, request, hits, path)
        return found, (by_rules, *both)


_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def _ordered(found: Iterable[Finding]) -> list[Finding]:
    return sorted(found, key=lambda f: (_RANK[f.severity], -1 if f.top is None else f.top))
