"""Where a node comes from, and how many such places are said in one line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphkit.view import GraphView

_SCOPES = "pkg.torch.onnx.name_scopes"
_TRACE = "pkg.torch.onnx.stack_trace"
"""Metadata that torch's exporter writes."""

_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""What it writes there for a node that no module made."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node comes from.

    Attributes:
        module: Path of the module that made it; "" if nothing tells.
        source: `file.py:12 in forward`; "" if nothing tells.
    """

    module: str
    source: str


def place_of(graph: GraphView, index: int) -> Place:
    """From graphkit's own source lines, else from those of torch's exporter, else from the path in the node's name.

    Raises:
        CorruptFile: the node's metadata is damaged.
    """
    node = graph.node(index)
    lines = node.provenance
    if lines:
        line = lines[0]
        where = f"{line.file}:{line.line}" if line.file else ""
        return Place(line.module, f"{where} in {line.function}" if where and line.function else where)
    metadata = node.metadata if index in graph.node_metadata else {}
    frames = _FRAME.findall(metadata.get(_TRACE, ""))
    source = ""
    if frames:
        file, number, function = frames[-1]
        source = f"{file.replace(chr(92), '/').rpartition('/')[2]}:{number} in {function}"
    return Place(_scope(metadata.get(_SCOPES, "")) or node.name.rpartition("/")[0].strip("/"), source)


def common(modules: Iterable[str]) -> str:
    """The path that several modules share."""
    parts = [re.split(r"(?<=[./])", module) for module in modules]
    shared = parts[0] if parts else []
    for other in parts[1:]:
        shared = _shared(shared, other)
    return "".join(shared).rstrip("./")


def ranges(modules: Sequence[str]) -> str:
    """Module paths in one line: `layers.0..11.attn`, or the first one and how many more there are."""
    distinct = list(dict.fromkeys(modules))
    if len(distinct) == 1:
        return distinct[0]
    split = [_NUMBER.split(module) for module in distinct]
    first = split[0]
    if all(len(parts) == len(first) for parts in split):
        varying = [k for k in range(len(first)) if len({parts[k] for parts in split}) > 1]
        if len(varying) == 1 and varying[0] % 2:
            at = varying[0]
            numbers = sorted({int(parts[at]) for parts in split})
            return "".join([*first[:at], _as_ranges(numbers), *first[at + 1 :]])
    shared = common(distinct)
    return f"{shared or distinct[0]} and {len(distinct) - (not shared)} {'parts of it' if shared else 'more'}"


def _scope(text: str) -> str:
    """The module in torch's list of scopes, whose last entry is the node's own name."""
    if not text or len(text) > 10_000:
        return ""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""  # written by somebody else, in another form
    scope = str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""
    return "" if scope == _NO_MODULE else scope


def _shared(left: list[str], right: list[str]) -> list[str]:
    # The last component has no dot after it, in whichever of both it is the last.
    found = []
    for a, b in zip(left, right, strict=False):
        if a.rstrip("./") != b.rstrip("./"):
            break
        found.append(a)
    return found


def _as_ranges(numbers: list[int]) -> str:
    """`0..3,7,9..11`"""
    found: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        found.append(str(start) if start == previous else f"{start}..{previous}")
        if number is not None:
            start = previous = number
    return ",".join(found)
