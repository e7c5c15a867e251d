"""Every operation of a frozen TensorFlow graph, with its values in files; some are fetched at a time, none is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphkit.capture import tf_paths
from graphkit.capture.request import Arrays
from graphkit.capture.taps import Tap, Tape
from graphkit.capture.tf_frozen import Frozen
from graphkit.model import SourceLine

_AT_ONCE = 64
_VIEWS = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims", "Placeholder", "Const", "StopGradient"})
"""Operations that make no new values."""

_FRAMED = frozenset({"Switch", "RefSwitch", "Merge", "Enter", "RefEnter", "Exit", "NextIteration", "LoopCond"})
"""Control flow of TensorFlow 1, whose values exist in some frames only."""

_CLOSE = 1e-3
"""How far the frozen graph's outputs may be from those of the source, as a share of their largest value: both add the
same numbers with the same kernels, so that only a fused one in eager mode makes a difference."""


def record(frozen: Frozen, inputs: Arrays, folder: Path, expected: Arrays | None = None) -> Tape | None:
    """Run the graph and record it; the bodies of functions count as part of the operation that calls them.

    Args:
        expected: What the source itself returns for these inputs.

    Returns:
        None for a graph with lookup tables, which nothing has filled, or with control flow of TensorFlow 1, and for
        one whose outputs are not as expected: it cannot stand for its source.
    """
    import tensorflow as tf

    if frozen.tables or any(node.op in _FRAMED for node in frozen.graph.node):
        return None
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(frozen.graph, name="")
        operations = graph.get_operations()
        feeds = {t.tensor: inputs[t.spec.name] for t in frozen.inputs}
        live = _live(operations, set(feeds))
        made = (t for o in operations if o.type not in _VIEWS for t in o.outputs)
        wanted = [t for t in made if t.name in live and t.dtype.is_floating]
        with tf.compat.v1.Session(graph=graph) as session:
            outputs = session.run({t.spec.name: t.tensor for t in frozen.outputs}, feeds)
            if expected is not None and not _same(outputs, expected):
                return None
            files = dict(_fetched(session, wanted, feeds, folder))
    layers = tf_paths.Layers.of(frozen.graph, frozen.layers)
    lines = {tf_paths.plain(name): line for name, line in frozen.lines.items()}
    taps = tuple(_tap(o, layers, lines, files) for o in operations if any(t.name in live for t in o.outputs))
    return Tape(taps, tuple(feeds), {t.spec.name: t.tensor for t in frozen.outputs})


def _live(operations: list[Any], fed: set[str]) -> set[str]:
    """What depends on an input."""
    live = set(fed)
    for operation in operations:
        if any(t.name in live for t in operation.inputs):
            live.update(t.name for t in operation.outputs)
    return live


def _same(outputs: Arrays, expected: Arrays) -> bool:
    import numpy as np

    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            return False
        if wanted.dtype.kind not in "fc":
            if not np.array_equal(found, wanted):
                return False
            continue
        size = float(np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0.0))
        if not np.allclose(found, wanted, rtol=_CLOSE, atol=_CLOSE * size, equal_nan=True):
            return False
    return True


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


def _tap(
    operation: Any, layers: tf_paths.Layers, lines: Mapping[str, SourceLine], files: Mapping[str, Mapping[str, str]]
) -> Tap:
    makes = tuple(t.name for t in operation.outputs)
    name = tf_paths.plain(operation.name)
    module, line = layers.path(name), lines.get(name)
    source = replace(line, module=module or line.module) if line is not None else SourceLine(module) if module else None
    reads = tuple(dict.fromkeys(t.name for t in operation.inputs))
    return Tap(operation.type, reads, makes, source, tuple(files[m] for m in makes if m in files))
