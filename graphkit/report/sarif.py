"""A check as SARIF 2.1.0, which GitHub and IDEs read.

Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. A result needs a file and a line: the author's
own where they are known, else the model's file at line 1; the node is a logical location either way.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphkit.support.result import CheckResult, Finding
    from graphkit.support.rule import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

MOST_RESULTS = 5_000
"""GitHub shows that many of a run, and refuses a file of more than 25,000."""


def to_sarif(result: CheckResult) -> str:
    """The result as one run; the same result gives the same bytes."""
    from graphkit import __version__
    from graphkit.support.rule import rules

    known = [rule for rule in rules() if result.target in rule.targets]
    shown = result.findings[:MOST_RESULTS]
    index = {rule.code: i for i, rule in enumerate(known)}
    run = {
        "tool": {
            "driver": {
                "name": "graphkit check",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in known],
            }
        },
        "artifacts": [{"location": {"uri": _uri(result.source)}}],
        "results": [_result(finding, result, index[finding.code]) for finding in shown],
        "properties": {
            "target": result.target,
            "answer": result.answer,
            "static": result.static,
            "leftOut": len(result.findings) - len(shown),
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.title.replace("'", "").split()),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"{rule.explanation}\n\nTry: {rule.fix}"},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, result: CheckResult, rule_index: int) -> dict[str, Any]:
    node = finding.node
    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(node.file if node is not None and node.file else result.source)},
            "region": {"startLine": (node.line or 1) if node is not None and node.file else 1},
        }
    }
    name = node.label if node is not None else finding.value
    if name:
        path = "/".join((*node.path, name)) if node is not None else name
        kind = "function" if node is not None else "variable"
        place["logicalLocations"] = [{"name": name, "fullyQualifiedName": path, "kind": kind}]
    text = "\n".join((finding.message, *finding.said, f"Try: {finding.fix}"))
    key = f"{finding.code}:{node.name or node.label if node is not None else finding.value}"
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_index,
        "level": finding.severity,
        "message": {"text": text},
        "locations": [place],
        "partialFingerprints": {"graphkitFinding/v1": key},
    }


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path.replace("\\", "/"), safe="/:@")
