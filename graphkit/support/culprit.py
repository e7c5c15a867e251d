"""Which of several nodes a build fails at: the first whose part of the model, all that leads to it, fails alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit.errors import BadRequest
from graphkit.support.scene import Place, Scene

if TYPE_CHECKING:
    from graphkit.model import Model

MOST_BUILDS = 8
"""Builds that the question may cost; of more suspects none is tried."""


def find(
    model: Model, scene: Scene, suspects: Sequence[Place], fails: Callable[[Model, Path], bool]
) -> tuple[Place, ...]:
    """The suspects that are left: one if the builds say which, else all.

    Args:
        model: The whole model, which fails.
        suspects: Nodes of the main graph.
        fails: Whether a model, saved at a path, fails in the same way. An output of unknown dtype is said to be
            float32: if it is not, the part fails in another way.
    """
    import onnx_ir as ir

    from graphkit.shrink.cut import TensorType, cut
    from graphkit.shrink.graph import Graph
    from graphkit.support.partition import type_of

    if not 1 < len(suspects) <= MOST_BUILDS:
        return tuple(suspects)
    graph = Graph(model)
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        for number, place in enumerate(sorted(suspects, key=lambda p: p.index)):
            made = [v.name for v in graph.nodes[place.index].outputs if v.name]
            region = graph.leading_to(graph.whole, made)
            types = {name: type_of(scene, name) or TensorType(ir.DataType.FLOAT) for name in made}
            part = cut(model, graph, region, {}, types)
            path = part.save(Path(folder, f"{number}.onnx"), durable=False)[0]
            try:
                if fails(part, path):
                    return (place,)
            except BadRequest:  # the part lacks a range, say: it proves nothing
                continue
    return tuple(suspects)
