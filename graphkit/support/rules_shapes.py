"""Shapes that depend on data, inputs that are shapes, ranks that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import EVERY, NVIDIA, Hit, Rule
from graphkit.support.scene import Place, Scene
from graphkit.view import GraphView

_SHAPE_SLOTS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "Slice": (1, 2, 3, 4),
    "Pad": (1,),
    "Resize": (3,),
    "TopK": (1,),
    "OneHot": (1,),
    "Split": (1,),
}
"""Inputs that decide the shape of an output."""

_SIZES = frozenset(("Shape", "Size"))


def _shape_inputs(scene: Scene) -> Iterator[Hit]:
    inputs = set(scene.inputs())
    seen: set[str] = set()
    for place in scene.of(*_SHAPE_SLOTS):
        for slot in _SHAPE_SLOTS[place.op]:
            if not scene.given(place, slot) or scene.constant_slot(place, slot):
                continue
            for value in _behind(scene, place.graph, place.graph.reads[place.index][slot]):
                name = scene.graph.values[value]
                if value in inputs and name not in seen:
                    seen.add(name)
                    yield Hit(f"the values of input `{name}` decide a shape in `{place.op}`", place, name)


def _behind(scene: Scene, graph: GraphView, value: int) -> Iterator[int]:
    """Inputs of the main graph whose values a value depends on; what goes through a shape does not count."""
    pending: list[tuple[GraphView, int]] = [(graph, value)]
    seen: set[tuple[int, int]] = set()
    while pending:
        at, each = pending.pop()
        if (id(at), each) in seen:
            continue
        seen.add((id(at), each))
        maker = scene.producer(at, each)
        if maker is None:
            found = scene.origin(at, each)
            if found is not None:
                yield found
        elif maker.op not in _SIZES:
            pending.extend((maker.graph, v) for v in maker.graph.reads[maker.index] if v)


def _no_rank(scene: Scene) -> Iterator[Hit]:
    for value in scene.inputs():
        if scene.tensor(scene.graph, value).shape is None and scene.graph.values[value]:
            type_ = scene.graph.types.get(value)
            if type_ is None or type_.kind in ("", "tensor"):
                name = scene.graph.values[value]
                yield Hit(f"input `{name}` has no rank", value=name, fix=f"--shape {name}=batch,3,...")


def _unimplemented(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("NonMaxSuppression"):
        yield Hit("`NonMaxSuppression` passes the parser, and no kernel implements it", place)


_DATA_DEPENDENT = {
    "trt": ("NonZero", "NonMaxSuppression"),
    "ort": ("NonZero", "NonMaxSuppression", "Unique", "Compress"),
}
"""What a target takes of these; the others are errors."""


def _data_dependent(scene: Scene) -> Iterator[Hit]:
    for place in scene.of(*_DATA_DEPENDENT[scene.target]):
        yield Hit(f"the shape of what `{place.op}` makes depends on the data", place)


def _branch_ranks(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("If"):
        condition = place.graph.reads[place.index][:1]
        if not condition or scene.is_constant(place.graph, condition[0]) or _is_of_sizes(scene, place):
            continue
        bodies = dict(place.bodies())
        if "then_branch" not in bodies or "else_branch" not in bodies:
            continue
        then, other = bodies["then_branch"], bodies["else_branch"]
        for a, b in zip(then.outputs, other.outputs, strict=False):
            one, two = scene.tensor(then, a).shape, scene.tensor(other, b).shape
            if one is not None and two is not None and len(one) != len(two):
                yield Hit(f"the branches give `{then.values[a]}` of rank {len(one)} or {len(two)}", place)


def _is_of_sizes(scene: Scene, place: Place) -> bool:
    """Whether the condition follows from sizes alone: those are fixed when an engine is built for fixed sizes."""
    return not any(True for _ in _behind(scene, place.graph, place.graph.reads[place.index][0]))


def _branch_shapes(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("If"):
        bodies = dict(place.bodies())
        if "then_branch" not in bodies or "else_branch" not in bodies:
            continue
        then, other = bodies["then_branch"], bodies["else_branch"]
        for a, b in zip(then.outputs, other.outputs, strict=False):
            one, two = scene.tensor(then, a).shape, scene.tensor(other, b).shape
            same_rank = one is not None and two is not None and len(one) == len(two)
            if same_rank and any(
                isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(one or (), two or (), strict=True)
            ):
                yield Hit(f"the branches give `{then.values[a]}` of different sizes", place)


def _loops(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("Loop", "Scan"):
        yield Hit(f"`{place.op}` runs its body step by step", place)


def _unknown_shapes(scene: Scene) -> Iterator[Hit]:
    graph = scene.graph
    unknown = [
        place
        for place in scene.places
        if place.graph is graph
        and any(v and scene.tensor(graph, v).shape is None and _is_tensor(scene, v) for v in graph.makes[place.index])
    ]
    if unknown:
        count = f"{len(unknown)} nodes make" if len(unknown) > 1 else "a node makes"
        yield Hit(f"{count} tensors of unknown rank{', this one first' if len(unknown) > 1 else ''}", unknown[0])


def _is_tensor(scene: Scene, value: int) -> bool:
    type_ = scene.graph.types.get(value)
    return type_ is None or type_.kind in ("", "tensor")


RULES = (
    Rule(
        "GKC121",
        "the values of an input decide shapes",
        "error",
        NVIDIA,
        "An engine would need ranges for the values of such an input (a shape tensor), which nobody gave: "
        "`Optimization "
        "profile 0 is missing values for shape input tensor`. The parser takes the model; the builder does not.",
        "make it a constant of the model, or compute the shape from another input's shape",
        _shape_inputs,
        seen_by="builder",
    ),
    Rule(
        "GKC122",
        "an input has no rank",
        "error",
        NVIDIA,
        "The number of dimensions of an engine's tensors is fixed. The parser takes such an input for a scalar.",
        "give its shape: --shape x=batch,3,224,224",
        _no_rank,
        seen_by="graphkit",
    ),
    Rule(
        "GKC123",
        "the target's parser takes an operator that its builder has no kernel for",
        "error",
        ("rtx",),
        "TensorRT-RTX 1.7.1 parses NonMaxSuppression, and ends in `has no runners that implement it` for every compute "
        "capability.",
        "leave it out of the model, and run it after the engine, on its boxes and scores",
        _unimplemented,
        seen_by="builder",
    ),
    Rule(
        "GKC124",
        "the branches of an If give different ranks",
        "error",
        NVIDIA,
        "`IConditionalOutputLayer: Must have inputs with equal ranks when condition is not a build-time constant`. The "
        "parser does not compare the branches.",
        "give both branches the same rank: Unsqueeze or Reshape in one of them",
        _branch_ranks,
        seen_by="builder",
    ),
    Rule(
        "GKC321",
        "a shape depends on the data",
        "warning",
        ("trt", "ort"),
        "How many elements there are is known only after the node has run: a library allocates for the largest number, "
        "waits for the number, and cannot fuse across it.",
        "use Where and a mask of fixed size, or leave the node out of the model and run it on the outputs",
        _data_dependent,
    ),
    Rule(
        "GKC322",
        "the branches of an If give different sizes",
        "warning",
        NVIDIA,
        "What follows is built for an unknown size, although each branch knows its own.",
        "export the branch that you use, or give both the same shape",
        _branch_shapes,
    ),
    Rule(
        "GKC323",
        "a loop",
        "warning",
        NVIDIA,
        "A Loop or Scan runs its body once a step, without fusion across steps. LSTM, GRU and RNN have operators of "
        "their own.",
        "let torch.nn.LSTM or GRU be exported as one node; unroll a loop of few steps",
        _loops,
    ),
    Rule(
        "GKC324",
        "the shapes inside are not known",
        "warning",
        EVERY,
        "Neither the file nor shape inference says what rank a tensor has, so that no rule here can judge "
        "what reads it.",
        "export the model again with shape inference, or run graphkit convert, which simplifies it",
        _unknown_shapes,
    ),
)
