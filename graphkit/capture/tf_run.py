"""tf2onnx on a GraphDef: the same steps as `tf2onnx.convert.from_graph_def`, with its failures seen.

`from_graph_def` imports the graph three times, copies every weight once per optimiser, sets `continue_on_error` and
drops what then goes wrong into a log (tf2onnx 1.17). Its parts are called here instead: `tf_optimize`,
`process_tf_graph` and `optimize_graph`, which tf2onnx's own tests call too.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphkit.capture import tf_loop_shapes
from graphkit.capture.tf_frozen import Frozen
from graphkit.errors import CaptureFailed

if TYPE_CHECKING:
    import onnx

LARGE = 1_500_000_000
"""Bytes of constants above which a graph is kept from being serialised whole: protobuf ends at 2 GiB."""


@dataclass(frozen=True, slots=True)
class Unconverted:
    """A node that tf2onnx left as it was.

    Attributes:
        name: The node's name in tf2onnx's graph.
        op: Its TensorFlow op.
        reason: What the op's handler raised; None where tf2onnx has no handler.
    """

    name: str
    op: str
    reason: str | None = None


@dataclass(slots=True)
class Log:
    """What happened while tf2onnx worked.

    Attributes:
        unconverted: Nodes that it left as they were.
        lines: First lines of its warnings and errors.
        graph: The GraphDef that it was given: functions are inlined by then, constants folded.
        optimiser_failed: Whether one of its optimisers could not read the graph.
    """

    unconverted: list[Unconverted] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    graph: Any = None
    optimiser_failed: bool = False
    broken: str | None = None


def run(frozen: Frozen, opset: int) -> tuple[onnx.ModelProto, Log]:
    """The graph as tf2onnx translates and optimises it, with tf2onnx's names; and what it could not translate.

    Raises:
        CaptureFailed: tf2onnx or TensorFlow's graph optimiser gave up.
    """
    proto, log = _once(frozen, opset, catch_errors=False)
    if log.optimiser_failed:  # its graph is half changed; tf2onnx's slower way undoes the optimiser that failed
        proto, log = _once(frozen, opset, catch_errors=True)
    return proto, log


def _once(frozen: Frozen, opset: int, *, catch_errors: bool) -> tuple[onnx.ModelProto, Log]:
    import tensorflow as tf
    from tf2onnx import optimizer, tfonnx

    inputs = [tensor.tensor for tensor in frozen.inputs]
    outputs = list(dict.fromkeys(tensor.tensor for tensor in frozen.outputs))
    with working() as log, tf.device("/cpu:0"):
        try:
            graph_def, values = _optimised(frozen.graph, inputs, outputs)
            log.graph = graph_def
            with tf.Graph().as_default() as graph, tf_loop_shapes.invariant(graph_def):
                tf.import_graph_def(graph_def, name="")
                made = tfonnx.process_tf_graph(
                    graph,
                    continue_on_error=True,
                    opset=opset,
                    custom_op_handlers=_custom_handlers(),
                    input_names=inputs,
                    output_names=outputs,
                    const_node_values=values,
                    initialized_tables=dict(frozen.tables),
                    **_defaults(graph_def, inputs),
                )
                if log.broken:
                    raise _gave_up(log)
                if not log.unconverted:
                    made = _tidied(optimizer, made, log, catch_errors=catch_errors)
                return made.make_model("graph", graph_name="graph"), log
        except CaptureFailed:
            raise
        except Exception as error:  # tf2onnx and TensorFlow raise anything
            if log.unconverted:
                return _nothing(), log
            raise _failed(error, log) from error


def _tidied(optimizer: Any, graph: Any, log: Log, *, catch_errors: bool) -> Any:
    try:
        return optimizer.optimize_graph(graph, catch_errors)
    except Exception:  # one optimiser cannot read the graph; that says nothing about the graph
        if catch_errors:
            raise
        log.optimiser_failed = True
        return graph


def _failed(error: Exception, log: Log) -> CaptureFailed:
    first = (str(error).strip().splitlines() or [""])[0]
    return CaptureFailed(
        f"tf2onnx cannot translate the graph: {type(error).__name__}: {first[:300]}",
        details=tuple(log.lines[-3:]),
        remedy="convert a part of the model, or report the graph",
    )


def _gave_up(log: Log) -> CaptureFailed:
    return CaptureFailed(
        f"tf2onnx failed halfway and would have gone on with a damaged graph: {log.broken}",
        remedy="convert a part of the model, or report the graph",
    )


def _nothing() -> onnx.ModelProto:
    import onnx

    return onnx.ModelProto()


# --- TensorFlow's side -------------------------------------------------------------------------------------------


def _optimised(graph_def: Any, inputs: list[str], outputs: list[str]) -> tuple[Any, dict[str, bytes] | None]:
    """The graph with functions inlined and constants folded, by Grappler; a large one without its weights, which come
    apart by name, and without folding, which would read them. (Grappler serialises the graph.)"""
    import tensorflow as tf
    from tf2onnx import tf_loader, tf_utils

    if constant_bytes(graph_def) > LARGE:
        copied = type(graph_def)()
        copied.CopyFrom(graph_def)
        values: dict[str, bytes] = tf_utils.compress_graph_def(copied)
        return _inlined(copied, [*inputs, *outputs]), values
    with tf.Graph().as_default():
        return tf_loader.tf_optimize(inputs, outputs, graph_def), None


def _inlined(graph_def: Any, kept: list[str]) -> Any:
    """As tf2onnx's `tf_optimize_grappler`, but for `constfold`."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers[:] = ["function", "dependency"]
    with tf.Graph().as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def)
    fetched = meta_graph_pb2.CollectionDef()
    fetched.node_list.value.extend(kept)
    meta_graph.collection_def["train_op"].CopyFrom(fetched)
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def constant_bytes(graph_def: Any) -> int:
    """Bytes of a GraphDef's constants, by dtype and shape; reads none of them."""
    import tensorflow as tf

    total = 0
    for node in graph_def.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            total += tf.as_dtype(tensor.dtype).size * math.prod(d.size for d in tensor.tensor_shape.dim)
    return total


def _defaults(graph_def: Any, inputs: Sequence[str]) -> dict[str, list[str]]:
    """A placeholder with a default is an input where the source says so, and its default elsewhere."""
    asked = {name.partition(":")[0] for name in inputs}
    names = [node.name for node in graph_def.node if node.op == "PlaceholderWithDefault"]
    return {"ignore_default": [n for n in names if n in asked], "use_default": [n for n in names if n not in asked]}


def _custom_handlers() -> dict[str, Any]:
    from graphkit.capture.tf_handlers import custom_handlers

    return dict(custom_handlers())


# --- tf2onnx's habits --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def working() -> Iterator[Log]:
    """tf2onnx at work: what it logs is kept and not shown, and it does the same each time."""
    with _logged() as log, _repeatable(), _whole_handlers(), _known_warnings():
        yield log


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """The same names and the same order of nodes each time.

    tf2onnx 1.17 numbers what it names by a counter that lives as long as the process, and walks over sets of nodes,
    which are in the order of their addresses: which of two equal nodes is kept, differs from run to run.
    """
    from tf2onnx import utils
    from tf2onnx.graph import Graph

    extract, consumers = Graph.extract_sub_graph_nodes, Graph.find_output_consumers

    def extract_sorted(*args: Any, **kwargs: Any) -> list[Any]:
        return sorted(extract(*args, **kwargs), key=_name)

    def consumers_sorted(*args: Any, **kwargs: Any) -> list[Any]:
        return sorted(consumers(*args, **kwargs), key=_name)

    before, utils.INTERNAL_NAME = utils.INTERNAL_NAME, 1
    Graph.extract_sub_graph_nodes, Graph.find_output_consumers = extract_sorted, consumers_sorted
    try:
        yield
    finally:
        utils.INTERNAL_NAME = before
        Graph.extract_sub_graph_nodes, Graph.find_output_consumers = extract, consumers


@contextlib.contextmanager
def _whole_handlers() -> Iterator[None]:
    """Handlers with their own arguments: tf2onnx 1.17's rewriters look one up and call it without."""
    from tf2onnx.handler import tf_op

    look_up = tf_op.find_effective_op

    def with_arguments(name: str, domain: str | None = None) -> Any:
        found = look_up(name, domain)
        return found and (functools.partial(found[0], **found[1]), found[1])

    tf_op.find_effective_op = staticmethod(with_arguments)
    try:
        yield
    finally:
        tf_op.find_effective_op = staticmethod(look_up)


def _name(node: Any) -> str:
    return str(node.name)


@contextlib.contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for module in (r"tf2onnx\.", r"tensorflow\."):
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
        yield


@contextlib.contextmanager
def _logged() -> Iterator[Log]:
    """Everything from a warning up that tf2onnx logs, kept and not shown."""
    from tf2onnx import utils

    log = Log()
    handler = _Collector(log)
    # tf2onnx/utils.py names its logger after its file, outside the package's hierarchy
    loggers = [logging.getLogger("tf2onnx"), utils.logger]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield log
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _Collector(logging.Handler):
    """Turns the two records that tf2onnx leaves instead of an exception into `Unconverted`."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.lines.append(record.getMessage().strip().splitlines()[0])
        arguments = record.args if isinstance(record.args, tuple) else ()
        if record.msg.startswith("Tensorflow op ["):
            self._log.unconverted.append(Unconverted(str(arguments[0]), str(arguments[1])))
        elif record.msg.startswith("rewriter %s: exception"):
            self._log.broken = self._log.lines[-1][:300]
        elif record.msg.startswith("Failed to convert node"):
            self._log.unconverted.append(Unconverted(str(arguments[0]), "", _reason(record)))


def _reason(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    text = (str(error).strip().splitlines() or [""])[0]
    whole = f"{type(error).__name__}: {text}"
    return whole.removeprefix("ValueError: make_sure failure: ").removeprefix("Refusal: ")[:300]
