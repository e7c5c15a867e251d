"""Whether tf2onnx may turn the list that a loop writes into a scan output of ONNX's Loop.

It does so for every list, and appends one element in each round. That is right only if the loop writes element i in
round i, and as many rounds as the list has elements; otherwise the result is in another order or of another length,
and nothing says so (tf2onnx 1.17).
"""

from __future__ import annotations

from typing import Any

from graphkit.capture.tf_handlers.rooms import Room


def written_in_order(room: Room, loop: Any, position: int, functions: dict[str, Any]) -> bool:
    """Whether the list at this input of a While node is written front to back, whole, one element in each round.

    Args:
        room: Where the While node is.
        loop: The node.
        position: Which of its inputs.
        functions: The FunctionDefs by name.
    """
    body, condition = (Room(functions[loop.attr[a].func.name]) for a in ("body", "cond"))
    source = room.producer(room.behind(loop.input[position]))
    write = body.producer(body.behind(body.result(position)))
    if source is None or source.op != "TensorListReserve" or write is None or write.op != "TensorListSetItem":
        return False
    if body.behind(write.input[0]) != body.arguments[position]:
        return False
    index = body.value(write.input[1])
    if index is not None:  # Keras keeps only the last output so, in a list of one, and reads the last
        size = room.value(source.input[1])
        return int(index) == 0 and size is not None and int(size) == 1 and _only_last_is_read(room, loop, position)
    return _counts(room, loop, body, body.behind(write.input[1])) and all(
        _bounded(room, loop, body, condition, test, source.input[1]) for test in _tests(condition)
    )


def _only_last_is_read(room: Room, loop: Any, position: int) -> bool:
    stacks = [n for n, _ in room.readers(room.output(loop, "output", position))]
    reads = [n for s in stacks for n, _ in room.readers(room.output(s, "tensor"))]
    return all(s.op == "TensorListStack" for s in stacks) and all(
        n.op == "StridedSlice" and _is_last(room, n) for n in reads
    )


def _is_last(room: Room, node: Any) -> bool:
    begin = room.value(node.input[1])
    return begin is not None and begin.tolist() == [-1] and node.attr["shrink_axis_mask"].i == 1


def _counts(room: Room, loop: Any, body: Room, argument: str) -> bool:
    """Whether an argument of the body is 0 at first and one more in each round."""
    if argument not in body.arguments:
        return False
    position = body.arguments.index(argument)
    start = room.value(loop.input[position])
    step = body.producer(body.behind(body.result(position)))
    if start is None or int(start) != 0 or step is None or step.op not in ("Add", "AddV2"):
        return False
    first, second = step.input[:2]
    return any(
        body.behind(counter) == argument and _is_one(body.value(one))
        for counter, one in ((first, second), (second, first))
    )


def _is_one(value: Any | None) -> bool:
    return value is not None and int(value) == 1


def _tests(condition: Room) -> list[Any]:
    """The comparisons that all have to hold for another round."""
    pending, found = [condition.result(0)], []
    while pending:
        node = condition.producer(condition.behind(pending.pop()))
        if node is not None and node.op == "LogicalAnd":
            pending.extend(node.input[:2])
        else:
            found.append(node)
    return found


def _bounded(room: Room, loop: Any, body: Room, condition: Room, test: Any, size: str) -> bool:
    """Whether a comparison ends the loop after exactly `size` rounds."""
    if test is None or test.op != "Less":
        return False
    counter = condition.behind(test.input[0])
    if counter not in condition.arguments:
        return False
    if not _counts(room, loop, body, body.arguments[condition.arguments.index(counter)]):
        return False
    limit, known = condition.behind(test.input[1]), condition.value(test.input[1])
    if limit in condition.arguments:
        position = condition.arguments.index(limit)
        if body.behind(body.result(position)) != body.arguments[position]:
            return False
        limit = room.behind(loop.input[position])
        known = room.value(limit)
        if limit == room.behind(size):
            return True
    wanted = room.value(size)
    return known is not None and wanted is not None and int(known) == int(wanted)
