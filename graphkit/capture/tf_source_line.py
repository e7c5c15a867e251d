"""The user's own line in TensorFlow's stack frames."""

from __future__ import annotations

import functools
import re
import traceback
from typing import Any

from graphkit.capture.torch_source_line import is_users, shown
from graphkit.model import SourceLine

_FRAMEWORK = re.compile(r"(?:^|/)(?:tensorflow|keras|tf_keras|tf2onnx|h5py)/|__autograph_generated_file|^<")
_GRAPHKIT = "/graphkit/capture/"


def lines_of(concrete: Any) -> dict[str, SourceLine]:
    """The user's line for each operation of a traced function, by the name that it has once calls are inlined.

    An operation inside a branch or a loop has the name that it has in the function of that branch.
    """
    lines: dict[str, SourceLine] = {}
    _collect(concrete.graph, "", lines, set())
    return lines


def line_of_error(error: BaseException) -> SourceLine | None:
    """The user's line that an exception passed through, innermost; autograph's own record of it where it has one."""
    metadata = getattr(error, "ag_error_metadata", None)
    if metadata is not None:
        for frame in metadata.translated_stack:  # the innermost first
            if _is_users(frame.filename):
                return SourceLine("", shown(frame.filename), frame.lineno, frame.function_name)
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_users(frame.f_code.co_filename):
            found = SourceLine("", shown(frame.f_code.co_filename), line, frame.f_code.co_qualname)
    return found


def _collect(graph: Any, prefix: str, lines: dict[str, SourceLine], seen: set[int]) -> None:
    if id(graph) in seen:
        return
    for operation in graph.get_operations():
        line = _line_of(operation.traceback)
        if line is not None:
            lines[f"{prefix}{operation.name}"] = line
        attributes = operation.node_def.attr.values()
        called = [f.name for a in attributes for f in (a.func, *a.list.func) if f.name]
        inlined = operation.type in ("PartitionedCall", "StatefulPartitionedCall")
        for name in called:
            function = graph._functions.get(name)
            if function is not None:
                _collect(function.graph, f"{prefix}{operation.name}/" if inlined else "", lines, seen | {id(graph)})


def _line_of(stack: Any) -> SourceLine | None:
    """The innermost frame that is the user's, inside graphkit's own call where it is on the stack."""
    if stack is None:  # an operation that TensorFlow's own core made
        return None
    for position in range(len(stack) - 1, -1, -1):
        frame = stack[position]
        if _GRAPHKIT in frame.filename:
            return None
        if _is_users(frame.filename):
            return SourceLine("", shown(frame.filename), frame.lineno, frame.name)
    return None


@functools.lru_cache(maxsize=4096)
def _is_users(file: str) -> bool:
    return is_users(file) and not _FRAMEWORK.search(file) and not _FRAMEWORK.search(shown(file))
