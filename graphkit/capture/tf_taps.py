"""Every operation of a frozen TensorFlow graph, with its values in files; some are fetched at a time, none is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphkit.capture.request import Arrays
from graphkit.capture.taps import Tap, Tape
from graphkit.capture.tf_frozen import Frozen
from graphkit.model import SourceLine

_AT_ONCE = 64
_VIEWS = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "Placeholder", "Const", "StopGradient"})
"""Operations that make no new values."""


def record(frozen: Frozen, inputs: Arrays, folder: Path) -> Tape | None:
    """Run the graph and record it; the bodies of functions count as part of the operation that calls them.

    Returns:
        None for a graph with lookup tables, which nothing has filled.
    """
    import tensorflow as tf

    if frozen.tables:
        return None
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(frozen.graph, name="")
        operations = graph.get_operations()
        feeds = {t.tensor: inputs[t.spec.name] for t in frozen.inputs}
        live = _live(operations, set(feeds))
        made = (t for o in operations if o.type not in _VIEWS for t in o.outputs)
        wanted = [t for t in made if t.name in live and t.dtype.is_floating]
        with tf.compat.v1.Session(graph=graph) as session:
            files = dict(_fetched(session, wanted, feeds, folder))
    taps = tuple(_tap(o, frozen.lines, files) for o in operations if any(t.name in live for t in o.outputs))
    return Tape(taps, tuple(feeds), {t.spec.name: t.tensor for t in frozen.outputs})


def _live(operations: list[Any], fed: set[str]) -> set[str]:
    """What depends on an input."""
    live = set(fed)
    for operation in operations:
        if any(t.name in live for t in operation.inputs):
            live.update(t.name for t in operation.outputs)
    return live


def _fetched(
    session: Any, wanted: list[Any], feeds: Mapping[str, Any], folder: Path
) -> Iterator[tuple[str, Mapping[str, str]]]:
    from graphkit.tensor_files import write_tensors

    for start in range(0, len(wanted), _AT_ONCE):
        target = folder / str(start)
        target.mkdir()
        chunk = wanted[start : start + _AT_ONCE]
        values = session.run(chunk, feeds)
        for entry in write_tensors({t.name: v for t, v in zip(chunk, values, strict=True)}, target):
            yield entry["name"], entry


def _tap(operation: Any, lines: Mapping[str, SourceLine], files: Mapping[str, Mapping[str, str]]) -> Tap:
    makes = tuple(t.name for t in operation.outputs)
    scope = operation.name.rpartition("/")[0].replace("/", ".")
    source = lines.get(operation.name) or (SourceLine(scope) if scope else None)
    reads = tuple(dict.fromkeys(t.name for t in operation.inputs))
    return Tap(operation.type, reads, makes, source, tuple(files[m] for m in makes if m in files))
