"""Sizes that nobody knows get names, by which equal ones are seen to be equal, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from graphkit import view
from graphkit.analyze.inference import infer
from graphkit.analyze.tensors import Shape

POSITIONS = (
    "n = Shape<start = 1, end = 2>(ids) p = Slice(order, zero, n, one) a = Gather(words, ids) b = Gather(places, p) "
    "y = Add(a, b)"
)


def shapes(tmp_path: Path, body: str, *, naming: bool = True) -> dict[str, Shape | None]:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (int64[b, s] ids, float[k] v) => (float[] y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    known = {
        "order": np.arange(8)[None], "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
        "words": np.ones((9, 4), np.float32), "places": np.ones((8, 4), np.float32),
    }  # fmt: skip
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in known.items())
    path = tmp_path / "named.onnx"
    onnx.save(model, path)
    table = infer(view.read(path), naming=naming)
    return {name: table.tensors[index].shape for index, name in enumerate(table.graph.values) if name}


def test_the_start_of_a_buffer_has_the_length_that_it_is_added_to(tmp_path: Path) -> None:
    found = shapes(tmp_path, POSITIONS)
    assert found["y"] == found["a"]
    assert found["b"] != found["y"]  # which may be the 8 of the buffer, as long as nothing is added


def test_without_names_it_stays_unknown(tmp_path: Path) -> None:
    assert shapes(tmp_path, POSITIONS, naming=False)["y"] == (*shapes(tmp_path, POSITIONS)["y"][:1], None, 4)  # type: ignore[index]


def test_a_later_part_of_a_buffer_may_have_any_length(tmp_path: Path) -> None:
    found = shapes(tmp_path, POSITIONS.replace("zero, n", "two, n"))
    assert found["y"] != found["a"]


def test_what_depends_on_data_has_names_of_its_own(tmp_path: Path) -> None:
    found = shapes(
        tmp_path, "i = NonZero(v) j = NonZero(v) a = Relu(v) c = Cast<to = 1>(i) d = Cast<to = 1>(j) y = Abs(c)"
    )
    assert found["y"] == found["c"] == found["i"]
    assert found["c"] != found["d"]
