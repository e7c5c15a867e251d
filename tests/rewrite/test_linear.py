"""The rewriter's work grows with the graph, counted rather than timed: looks at nodes, and uses that are copied."""

import onnx_ir as ir
import pytest

from fixtures.corpus_synthetic import long_graph
from graphkit.model import Model, Origin
from graphkit.optimization import rewrite_model
from graphkit.rewrite.editor import Editor
from graphkit.rewrite.passes import Options
from graphkit.traversal import read_count

BLOCKS = 15


def work(blocks: int, monkeypatch) -> dict[str, int]:
    """Of rewriting a graph of so many blocks, which share their numbers."""
    counted = {"looks": 0, "uses": 0}
    look, uses = Editor.apply_first, ir.Value.uses

    def counted_look(editor, rules, node):
        counted["looks"] += 1
        return look(editor, rules, node)

    def counted_uses(value):
        found = uses(value)
        counted["uses"] += len(found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Editor, "apply_first", counted_look)
        patch.setattr(ir.Value, "uses", counted_uses)
        found = rewrite_model(Model(ir.from_proto(long_graph(blocks)), Origin("test")), Options())
    assert sum(found.after.values()) == 4 * blocks
    return counted


@pytest.fixture(scope="module")
def once() -> dict[str, int]:
    with pytest.MonkeyPatch.context() as patch:
        return work(BLOCKS, patch)


@pytest.mark.parametrize("what", ["looks", "uses"])
def test_four_times_the_graph_is_four_times_the_work(once, what, monkeypatch):
    assert work(4 * BLOCKS, monkeypatch)[what] <= 4.4 * once[what]


def test_reads_are_counted_as_uses_are():
    model = ir.from_proto(long_graph(3))
    values = [*model.graph.initializers.values(), *(o for node in model.graph for o in node.outputs)]
    assert [read_count(value) for value in values] == [len(value.uses()) for value in values]
    assert max(map(read_count, values)) == 3
