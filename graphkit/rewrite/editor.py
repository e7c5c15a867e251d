"""The one hand that changes a graph: rules read through it and write through it, and it keeps the books.

What it guarantees, so that no rule has to: new nodes stand where their inputs are known; outputs of the graph keep
their names and types; nodes whose results nobody needs any more go; what comes in their place has the union of their
source lines; and every application of a rule is recorded with the nodes that went and that came.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from graphkit.analyze.tensors import Shape, Tensor
from graphkit.model import SourceLine, provenance, set_provenance
from graphkit.rewrite.facts import Facts
from graphkit.rewrite.naming import inherit, names_of
from graphkit.rewrite.onnx_forms import dimension, dtype_of, made_attribute
from graphkit.rewrite.reading import Reading
from graphkit.rewrite.rule import Change, Miss, Rule
from graphkit.traversal import bodies_of, graphs_of, read_count

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

_MOST_LINES = 32
_MOST_MISSES = 200
_FEW = 8


class Editor(Reading):
    """Reads and changes one model.

    Attributes:
        model: The graph being changed, in place.
        facts: What is known of its values.
        target: `onnx`, `trt`, `rtx` or `ort`.
        done: What was applied, in order.
        touched: Nodes whose neighbourhood changed since this was last emptied, by id.
        growth: Bytes of constants that folding may still add.
        at_once: Bytes that one folded constant may add for now, so that the smallest are folded first.
        put_off: Bytes of the smallest constant that was larger than that; 0 where none was.
        compact: Whether weights of one number stay nodes, so that scales fold into them without growth.
        left_compact: Whether one did.
        most: Bytes of all constants that `growth` allows in the end; 0 where that was not asked.
        computed: What folding small constants gave, see `fold_evaluate.remembered`.
        kept: What was found out about nodes, by what and id; any change empties it.
        settled: Ids of nodes that need no other look before something changes; any change empties it.
    """

    def __init__(self, model: ir.Model, facts: Facts, target: str, growth: int) -> None:
        super().__init__(model, facts)
        self.target = target
        self.growth = self.at_once = growth
        self.put_off = 0
        self.compact, self.left_compact, self.most = True, False, 0
        self.done: list[Change] = []
        self.missed: dict[tuple[str, str], Miss] = {}
        self.touched: dict[int, ir.Node] = {}
        self.disordered = False
        self.kept: dict[tuple[str, int], Any] = {}
        self.settled: set[int] = set()
        self.computed: dict[Hashable, list[np.ndarray[Any, Any]] | None] = {}
        self._rule: Rule | None = None
        self._fresh: list[ir.Node] = []
        self._died: list[ir.Node] = []
        self._born: list[ir.Node] = []
        self._altered = False
        self._names: set[str] | None = None
        self._counter = 0
        self._pool: dict[Any, ir.Value] = {}

    # --- for the driver -----------------------------------------------------------------------------------------

    def apply_first(self, rules: Iterable[Rule], node: ir.Node) -> bool:
        """Let rules look at a node, until one changes something; whether one did."""
        for rule in rules:
            self._rule = rule
            if self.missed and id(node) not in self.settled:
                self.missed.pop((rule.name, node.name or ""), None)
            rule.apply(self, node)
            if self._fresh:  # made, and then not used
                for left in self._fresh:
                    _detach(left)
                self._fresh = []
            if self._altered or self._died or self._born:
                self._record(rule)
                return True
        return False

    def apply(self, rule: Rule, node: ir.Node) -> bool:
        """Let a rule look at a node; whether it changed anything."""
        return self.apply_first((rule,), node)

    def _record(self, rule: Rule) -> None:
        """Write down what a rule did, and forget what was only true before."""
        died, fresh = self._died, self._born
        self._fresh, self._died, self._born, self._altered = [], [], [], False
        self.settled.clear()
        self.kept.clear()
        lines: dict[SourceLine, None] = {}
        for old in died:
            if old.metadata_props:
                lines.update(dict.fromkeys(provenance(old)))
        born = [n for n in fresh if n.graph is not None]
        for new in born:
            set_provenance(new, provenance(new) or list(lines)[:_MOST_LINES])  # a rule may say it itself
        old_names = tuple((n.name or "", n.op_type) for n in died)
        inherit(died, born)
        self.done.append(
            Change(
                rule.name,
                old_names,
                tuple((n.name or "", n.op_type) for n in born),
                tuple(lines)[:_MOST_LINES],
            )
        )
        for new in born:
            self.touched[id(new)] = new

    # --- for rules: making ----------------------------------------------------------------------------------------

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        like: ir.Value | None = None,
        shape: Shape | None = None,
        dtype: str | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Output of a new node with one output; see `ops`.

        Args:
            like: A value of the same type, where there is one.
            shape, dtype: Its type, where they are known; they win over those of `like`.
        """
        (made,) = self.ops(op_type, inputs, attributes, domain=domain)
        known = self.facts.tensor(like) if like is not None else Tensor()
        self.describe(made, Tensor(shape if shape is not None else known.shape, dtype or known.dtype))
        return made

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Outputs of a new node. It enters the graph when `replace` is told what its results stand for."""
        import onnx_ir as ir

        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        attributes = {k: v for k, v in (attributes or {}).items() if v is not None}
        made = [
            ir.Attr(k, v.type, v.value) if isinstance(v, ir.Attr) else made_attribute(k, v)
            for k, v in attributes.items()
        ]
        node = ir.Node(domain, op_type, given, made, num_outputs=outputs, name=self.name(op_type.lower()))
        for index, output in enumerate(node.outputs):
            output.name = self.name(f"{node.name}_out{index}")
        self._fresh.append(node)
        return tuple(node.outputs)

    def enter(self, node: ir.Node) -> None:
        """Let a node from elsewhere, which stands in no graph, enter like one that `ops` made."""
        self._fresh.append(node)

    def initializer(self, array: np.ndarray[Any, Any], hint: str = "constant") -> ir.Value:
        """A constant with these elements; small equal ones are one."""
        import numpy as np
        import onnx_ir as ir

        array = np.ascontiguousarray(array) if array.ndim else np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes()) if array.nbytes <= 256 else None
        if key is not None and key in self._pool:
            return self._pool[key]
        value = self.hold(ir.Tensor(array), hint)  # ir.tensor asks for five protocols first
        if key is not None:
            self._pool[key] = value
        return value

    def hold(self, tensor: ir.TensorProtocol, hint: str) -> ir.Value:
        """A constant that is this tensor, unread."""
        import onnx_ir as ir

        name = self.name(hint)
        tensor.name = name
        value = ir.Value(
            name=name, const_value=tensor, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype)
        )
        self.model.graph.register_initializer(value)
        return value

    def ints_value(self, numbers: Sequence[int]) -> ir.Value:
        """An int64 vector."""
        import numpy as np

        return self.initializer(np.asarray(numbers, dtype=np.int64), "ints")

    def describe(self, value: ir.Value, tensor: Tensor) -> None:
        """Say what type a new value has."""
        import onnx_ir as ir

        self.facts.set(value, tensor)
        if tensor.dtype is not None:
            value.type = ir.TensorType(dtype_of(tensor.dtype))
        if tensor.shape is not None:
            value.shape = ir.Shape([dimension(size) for size in tensor.shape])

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` stand for `old` everywhere, in the graph's outputs too; a new value takes the old name."""
        self.replace_all({old: new})

    def replace_all(self, pairs: Mapping[ir.Value, ir.Value]) -> None:
        """As `replace`, for several values that go together."""
        self.disordered = self.disordered or len(pairs) > 1
        anchor = next(iter(pairs)).producer()
        assert anchor is not None
        assert anchor.graph is not None
        if self._fresh:
            anchor.graph.insert_before(anchor, self._fresh)
            self._born.extend(self._fresh)
        fresh, self._fresh = {id(n) for n in self._fresh}, []
        pending: list[ir.Node] = []
        for old, new in pairs.items():
            source = old.producer()
            assert source is not None
            self._stand_in(old, new, is_new=id(new.producer()) in fresh)
            pending.append(source)
        self._altered = True
        self._bury(pending)

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Give a node another input; whatever nobody reads any more goes."""
        before = node.inputs[index]
        if self._fresh and node.graph is not None:
            node.graph.insert_before(node, self._fresh)
            self._born.extend(self._fresh)
            self._fresh = []
        node.replace_input_with(index, value)
        self._altered = True
        self.touch(node)
        source = before.producer() if before is not None else None
        if source is not None:
            self._bury([source])

    def set_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Give a node an attribute; None takes it away."""
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = made_attribute(name, value)
        self._altered = True
        self.touch(node)

    def make_output(self, value: ir.Value, output: ir.Value) -> None:
        """Let `value`, which a node of the same graph makes and which is no output yet, be the output of the graph in
        the place of `output`, under its name."""
        source = output.producer()
        assert source is not None
        self.facts.same(value, output)
        name, output.name = output.name, None
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        value.name, value.shape, value.type = name, output.shape, output.type or value.type
        for user in self.users(value):
            self.touch(user)
        self._altered = True
        self._bury([source])

    def miss(self, node: ir.Node, why: str) -> bool:
        """Note why the rule that is looking does not fire at a place that looks like its own; always False."""
        assert self._rule is not None
        if len(self.missed) < _MOST_MISSES:
            key = (self._rule.name, node.name or "")
            self.missed[key] = Miss(self._rule.name, node.name or node.op_type, why, tuple(provenance(node)))
        return False

    def affords(self, added: int) -> bool:
        """Whether a folded constant may add so many bytes now."""
        if self.at_once < added <= self.growth:
            self.put_off = min(added, self.put_off or added)
        return added <= min(self.growth, self.at_once)

    def name(self, hint: str) -> str:
        """A name that nothing in the model has."""
        if self._names is None:
            self._names = names_of(self.model)
        while True:
            self._counter += 1
            name = f"{hint}_gk{self._counter}"
            if name not in self._names:
                self._names.add(name)
                return name

    def names_changed(self) -> None:
        """Look again at what names there are, when the next is wanted: a pass has given some by itself."""
        self._names = None

    def touch(self, node: ir.Node) -> None:
        """Let the rules look at a node and what follows it again."""
        self.touched[id(node)] = node

    # --- inside ---------------------------------------------------------------------------------------------------

    def _stand_in(self, old: ir.Value, new: ir.Value, *, is_new: bool) -> None:
        self.facts.same(new, old)
        users = self.users(old)
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        if old.is_graph_output():
            if not is_new:
                new = self._identity(old, new)
            old.name, name = None, old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name, new.shape, new.type = name, old.shape, old.type or new.type
        else:
            old.replace_all_uses_with(new)
            if is_new:
                old.name, new.name = None, old.name
        for user in users:
            self.touch(user)

    def _identity(self, old: ir.Value, new: ir.Value) -> ir.Value:
        """An output of the graph needs a name of its own, and `new` has one already."""
        made = self.op("Identity", [new], like=old)
        source = old.producer()
        assert source is not None
        assert source.graph is not None
        source.graph.insert_before(source, self._fresh)
        self._born.extend(self._fresh)
        self._fresh = []
        return made

    def _bury(self, nodes: list[ir.Node]) -> None:
        """Remove the nodes whose outputs nobody needs, and so on upwards."""
        pending = list(nodes)
        gone: dict[int, ir.Node] = {}
        while pending:
            node = pending.pop()
            if node.graph is None or id(node) in gone or _is_needed(node):
                continue
            reads = [v for v in node.inputs if v is not None]
            if node.attributes.data and bodies_of(node):
                reads.extend(_captured(node))
            _detach(node)
            gone[id(node)] = node
            for value in reads:
                source = value.producer()
                if source is None:
                    continue
                pending.append(source)
                if read_count(value) <= _FEW:  # what is left of few readers may be absorbed by one of them
                    for user, _ in value.uses():
                        self.touch(user)
        self._died.extend(gone.values())
        for graph, inside in groupby(gone.values(), key=lambda node: node.graph):
            if graph is not None:
                graph.remove(list(inside))  # one by one takes twice as long


def bury_all(editor: Editor) -> int:
    """Remove every node that nothing needs, unnamed rule or not; returns how many."""
    editor._died = []
    for graph in graphs_of(editor.model.graph):
        editor._bury(list(reversed(graph)))
    died, editor._died = editor._died, []
    return len(died)


def _is_needed(node: ir.Node) -> bool:
    return any(read_count(output) or output.is_graph_output() for output in node.outputs)


def _detach(node: ir.Node) -> None:
    for index, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(index, None)
    if not node.attributes.data:
        return
    for graph in bodies_of(node):
        inside = list(graph)
        for inner in inside:
            _detach(inner)
        graph.remove(inside)  # so that nobody who holds one of them takes it for alive


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values of graphs around it that the bodies of a node read."""
    found: list[ir.Value] = []
    for inner in (n for graph in bodies_of(node) for n in graph):
        found.extend(v for v in inner.inputs if v is not None)
        found.extend(_captured(inner))
    return found
