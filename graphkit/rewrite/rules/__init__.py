"""Every rewrite rule: one file each (or one family), and one line here.

A rule looks at one node and rewrites what is around it through the `Editor`; see `graphkit.rewrite.rule.Rule`. The
order is the order of trying at a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module

from graphkit.errors import UnknownName
from graphkit.rewrite.rule import GROUPS, Changes, Rule

_FILES = (
    "identities",
    "constants",
    "constants_duplicates",
    "control",
    "elementwise",
    "shapes",
    "slices",
    "shapes_einsum",
    "recurrent_state",
    "gelu",
    "activation",
    "norm",
    "norm_affine",
    "rope",
    "attention_grid",
    "attention",
    "attention_cache",
    "attention_heads",
    "cache_write",
    "qkv",
    "norm_residual",
    "target_ranks",
    "pad_merge",
    "conv_scale",
    "conv_prescale",
    "gemm_forms",
    "transpose_pairs",
    "transpose_region",
    "scale_chains",
    "quantised_weights",
)
"""Modules of this package, each with a tuple `RULES`."""


def every() -> tuple[Rule, ...]:
    """All rules, in the order of trying."""
    return tuple(rule for name in _FILES for rule in import_module(f"{__name__}.{name}").RULES)


def check_names(names: Iterable[str]) -> None:
    """Refuse what is the name of no rule and no group.

    Raises:
        UnknownName
    """
    from graphkit.rewrite import legalize

    known = {*GROUPS, *(rule.name for rule in (*every(), *legalize.rules()))}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "graphkit optimize --rules lists them"
            raise UnknownName(f"no rewrite rule or group is called `{name}`", remedy=remedy)


def rounding(changes: Changes) -> bool:
    """Whether anything that was done may round differently: by a rule that is not exact, or by none of these."""
    from graphkit.rewrite import legalize

    exact = {rule.name for rule in (*every(), *legalize.rules()) if rule.exact}
    return not exact.issuperset(changes.by_rule())


def chosen(target: str, opset: int, only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """The rules for a target and an opset; `only` and `skip` name rules or groups."""
    return tuple(
        rule
        for rule in every()
        if (not rule.targets or target in rule.targets)
        and rule.since <= opset
        and (not only or rule.name in only or rule.group in only)
        and rule.name not in skip
        and rule.group not in skip
    )
