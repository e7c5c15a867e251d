"""Every rewrite rule: one file each (or one family), and one line here.

A rule looks at one node and rewrites what is around it through the `Editor`; see `graphkit.rewrite.rule.Rule`. The
order is the order of trying at a node.
"""

from __future__ import annotations

from importlib import import_module

from graphkit.errors import UnknownName
from graphkit.rewrite.rule import GROUPS, Rule

_FILES = ("identities",)
"""Modules of this package, each with a tuple `RULES`."""


def every() -> tuple[Rule, ...]:
    """All rules, in the order of trying."""
    return tuple(rule for name in _FILES for rule in import_module(f"{__name__}.{name}").RULES)


def chosen(target: str, opset: int, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """The rules for a target and an opset; `only` and `skip` name rules or groups.

    Raises:
        UnknownName: there is no such rule or group.
    """
    rules = every()
    known = {*GROUPS, *(rule.name for rule in rules)}
    for name in (*only, *skip):
        if name not in known:
            raise UnknownName(f"no rewrite rule or group is called `{name}`", remedy="graphkit optimize --rules")
    return tuple(
        rule
        for rule in rules
        if (not rule.targets or target in rule.targets)
        and rule.since <= opset
        and (not only or rule.name in only or rule.group in only)
        and rule.name not in skip
        and rule.group not in skip
    )
