"""What a rule is: a frozen record with a function over the scene, found by its code."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from graphkit.errors import BadOption
from graphkit.support.scene import Place, Scene

Severity = Literal["error", "warning", "note"]
"""error: it will not build. warning: it will, but not as one may think. note: worth knowing."""

TARGETS = {"trt": "TensorRT", "rtx": "TensorRT-RTX", "ort": "ONNX Runtime"}

NVIDIA = ("trt", "rtx")
EVERY = ("trt", "rtx", "ort")

_GROUPS = (
    "operators",
    "types",
    "shapes",
    "limits",
    "quantisation",
    "quantised",
    "capabilities",
    "hygiene",
    "fusions",
    "asked",
)
"""Modules `graphkit.support.rules_*`, each with `RULES`."""


class Hit(NamedTuple):
    """One place where a rule holds.

    Attributes:
        message: What is wrong there, with the value that is wrong.
        place: The node; None where the fault is the model's, or a value's.
        value: Name of the input, output or weight that it is about.
        fix: What to do here, where that is more than the rule's own `fix`.
        capabilities: The compute capabilities that it does not build for; () for all.
    """

    message: str
    place: Place | None = None
    value: str | None = None
    fix: str | None = None
    capabilities: tuple[str, ...] = ()


class Rule(NamedTuple):
    """Something about a model that a target minds.

    Attributes:
        code: `GKC101`: 1 the target does not take it, 2 some compute capabilities do not, 3 hygiene, 4 ONNX Runtime,
            9 what was asked of a library.
        title: In a few words.
        severity: See `Severity`.
        targets: Which targets mind it.
        explanation: Why, in sentences; with the release that it was measured on.
        fix: What to do.
        find: Where a model does it.
        seen_by: Who in the target says no: its `parser`; its `builder`, to which the parser leaves it; or `graphkit`,
            which refuses what the library would change without a word.
    """

    code: str
    title: str
    severity: Severity
    targets: tuple[str, ...]
    explanation: str
    fix: str
    find: Callable[[Scene], Iterable[Hit]]
    seen_by: Literal["parser", "builder", "graphkit"] = "parser"


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Every rule, by code."""
    found = [rule for name in _GROUPS for rule in importlib.import_module(f"graphkit.support.rules_{name}").RULES]
    return tuple(sorted(found, key=lambda rule: rule.code))


def rule_of(code: str) -> Rule:
    """The rule with a code. Raises: `BadOption`: there is none."""
    for rule in rules():
        if rule.code == code.upper():
            return rule
    raise BadOption(f"no rule has the code {code!r}", remedy=f"the codes: {', '.join(r.code for r in rules())}")


def chosen(select: Iterable[str], ignore: Iterable[str]) -> Callable[[str], bool]:
    """Whether a code is among the selected and not among the ignored, both given as prefixes: `GKC3`; the longer wins.

    Raises:
        BadOption: a prefix that no code has.
    """
    for prefix in (*select, *ignore):
        if not any(rule.code.startswith(prefix.upper()) for rule in rules()):
            raise BadOption(
                f"no rule's code begins with {prefix!r}", remedy="a code, or its beginning: GKC3; see check --explain"
            )
    wanted, unwanted = tuple(p.upper() for p in select), tuple(p.upper() for p in ignore)

    def is_shown(code: str) -> bool:
        yes = max((len(p) for p in wanted if code.startswith(p)), default=-1 if wanted else 0)
        no = max((len(p) for p in unwanted if code.startswith(p)), default=-1)
        return yes > no or (yes == no == -1 and not wanted)

    return is_shown


def nothing(_scene: Scene) -> Iterator[Hit]:
    """For what only a library can say."""
    return iter(())
