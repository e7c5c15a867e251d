"""A Keras model's file, without Keras: layers from its configuration, weights where h5py is installed."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from graphkit import isolate
from graphkit.analyze.inspection import Inspection, Stored, totals
from graphkit.errors import CorruptFile
from graphkit.shapes import TensorSpec

_AGAIN = "copy or save it again"
_LARGEST_CONFIG = 64 << 20
_WEIGHTS = "model.weights.h5"


def look_at(path: Path, *, zipped: bool) -> Inspection:
    """What a `.keras` or `.h5` file holds. HDF5 is read in a child process: the library is native code.

    Raises:
        CorruptFile: it is damaged.
    """
    facts: list[tuple[str, str]] = []
    config: Any = None
    notes = ["operators are Keras layers; cost and memory are those of its ONNX (graphkit convert)"]
    content: dict[str, Any] | None = None
    if importlib.util.find_spec("h5py") is None:
        notes.append("weights unknown: h5py is not installed (pip install h5py)")
    else:
        content = isolate.worker("h5py").call(
            "graphkit.analyze.hdf5_child:content", path=str(path), member=_WEIGHTS if zipped else None
        )
    try:
        if zipped:
            config, facts = _of_zip(path)
        elif content is not None and content["config"]:
            config = json.loads(content["config"])
        operators = Counter(_classes(config))
        inputs = tuple(_inputs(config))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile, OSError) as error:
        raise CorruptFile(f"{path.name} is a damaged Keras file: {error}", remedy=_AGAIN) from error
    if config is None:
        notes.append("weights only: the file holds no configuration of a model" if content else "layers unknown")
    stored = tuple(Stored(name, dtype, tuple(dims)) for name, dtype, dims in (content or {"tensors": []})["tensors"])
    ranked = tuple(sorted(operators.items(), key=lambda row: (-row[1], row[0])))
    return Inspection(
        path.name, "Keras (.keras)" if zipped else "Keras (.h5)", path.stat().st_size, tuple(facts),
        inputs or None, None, ranked if config is not None else None,
        totals(stored) if content is not None else None, stored, tuple(notes),
    )  # fmt: skip


def _of_zip(path: Path) -> tuple[Any, list[tuple[str, str]]]:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
            raise CorruptFile(f"config.json in {path.name} is larger than any model's", remedy=_AGAIN)
        config = json.loads(archive.read("config.json"))
        facts = []
        if "metadata.json" in archive.namelist() and archive.getinfo("metadata.json").file_size < _LARGEST_CONFIG:
            metadata = json.loads(archive.read("metadata.json"))
            facts = [("Keras", str(metadata.get("keras_version"))), ("saved", str(metadata.get("date_saved")))]
    return config, [("class", str(config.get("class_name"))), *facts]


def _layers(config: Any) -> list[Any]:
    layers = config.get("config", {}).get("layers", []) if isinstance(config, dict) else []
    return layers if isinstance(layers, list) else []


def _classes(config: Any) -> list[str]:
    """Class of every layer, those of models among the layers included."""
    found = []
    for layer in _layers(config):
        inner = _layers(layer)
        found.extend(_classes(layer) if inner else [str(layer.get("class_name"))])
    return found


def _inputs(config: Any) -> list[TensorSpec]:
    found = []
    for layer in _layers(config):
        if layer.get("class_name") == "InputLayer":
            own = layer["config"]
            shape = own.get("batch_shape", own.get("batch_input_shape"))
            dtype = own.get("dtype")
            if isinstance(dtype, dict):
                dtype = dtype.get("config", {}).get("name")
            dims = None if shape is None else tuple(None if size is None else int(size) for size in shape)
            found.append(TensorSpec(str(own.get("name", "input")), dtype if isinstance(dtype, str) else None, dims))
    return found
