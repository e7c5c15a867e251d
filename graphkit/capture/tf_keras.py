"""Load a Keras file without running code that it names, unless the user trusts it."""

from __future__ import annotations

import importlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphkit.capture.python_callable import search_here
from graphkit.capture.tf_trace import sentence
from graphkit.errors import (
    ArchitectureMissing,
    BadCallable,
    CorruptFile,
    LibraryTooOld,
    NotAModel,
    UntrustedSource,
)

_FLOOR = "3.13.2"
"""Below it Keras follows external links in weights and loads a SavedModel in safe mode (CVE-2026-1669, -1462)."""

_LARGEST_CONFIG = 64 << 20
_RUNS_CODE = frozenset(
    {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "function", "__typespec__"}
)
_AGAIN = "copy or save it again"


def load(path: Path, *, zipped: bool, trust: bool) -> Any:
    """The model in a `.keras` or `.h5` file.

    Args:
        path: The file, whatever its name ends in.
        zipped: Whether it is a `.keras` file; else it is HDF5.
        trust: Whether Python code named by the file may run.

    Raises:
        UntrustedSource: loading would run code that the file names, and `trust` is False. Nothing was loaded.
        ArchitectureMissing: an `.h5` file with weights only. `CorruptFile`: it is damaged.
        LibraryTooOld: the installed Keras is not safe for files of others.
        NotAModel: classes that the file names cannot be found.
    """
    _check_version()
    config = _config_of_zip(path) if zipped else _config_of_hdf5(path)
    named = list(_code_in(config))
    if named and not trust:
        raise _untrusted(path, named)
    return _load(path, ".keras" if zipped else ".h5", _custom_objects(path, named), trust=bool(named))


def _check_version() -> None:
    import keras
    from packaging.version import Version

    if Version(keras.__version__) < Version(_FLOOR):
        raise LibraryTooOld(
            f"Keras {keras.__version__} has known holes in loading files", remedy=f"pip install 'keras>={_FLOOR}'"
        )


def _config_of_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise CorruptFile(f"config.json in {path.name} is larger than any model's", remedy=_AGAIN)
            return json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise CorruptFile(f"{path.name} is a damaged .keras file: {error}", remedy=_AGAIN) from error


def _config_of_hdf5(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            names = list(file)[:4]
    except (OSError, RuntimeError, KeyError) as error:
        raise CorruptFile(f"{path.name} is a damaged HDF5 file: {sentence(error)}", remedy=_AGAIN) from error
    if config is None:
        raise ArchitectureMissing(
            f"{path.name} holds weights but no Keras model: {', '.join(names) or 'nothing'}",
            where=path.name,
            remedy="name a function that builds the model and loads them: package.module:callable; or save the whole "
            "model with model.save('model.keras')",
        )
    try:
        return json.loads(config)
    except ValueError as error:
        raise CorruptFile(f"the model_config in {path.name} is not JSON: {error}", remedy=_AGAIN) from error


def _code_in(config: Any) -> Iterator[tuple[str | None, str]]:
    """Module and name of every class in a configuration that is not a plain part of Keras."""
    if isinstance(config, list):
        for item in config:
            yield from _code_in(item)
    if not isinstance(config, dict):
        return
    name = config.get("class_name")
    if isinstance(name, str) and ("config" in config or "module" in config):
        module = config.get("module")
        if not _is_plain(module, name, config.get("registered_name")):
            yield (module if isinstance(module, str) else None), name
    for key, item in config.items():
        if key not in ("compile_config", "training_config"):  # never loaded: a conversion needs no loss
            yield from _code_in(item)


def _is_plain(module: Any, name: str, registered: Any) -> bool:
    import keras

    if name in _RUNS_CODE:
        return False
    if isinstance(registered, str) and ">" in registered:
        return False
    if isinstance(module, str):
        return module == "builtins" or module == "keras" or module.startswith("keras.")
    if name.startswith("__") and name.endswith("__"):
        return True
    rooms = (keras, keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.activations)
    return any(hasattr(room, name) for room in rooms) or name in ("Functional", "Sequential", "Model")


def _untrusted(path: Path, named: list[tuple[str | None, str]]) -> UntrustedSource:
    shown = list(dict.fromkeys(f"{module}.{name}" if module else name for module, name in named))
    what = f"`{shown[0]}`" + (f" and {len(shown) - 1} more" if len(shown) > 1 else "")
    return UntrustedSource(
        f"{path.name} names {what}, which is no plain layer of Keras; loading it would run code",
        where=path.name,
        details=tuple(f"`{name}`" for name in shown[1:9]),
        remedy="--trust, if you trust the file's author as you trust a program; or build the model in a function and "
        "name that: package.module:callable",
        data={"classes": shown},
    )


def _custom_objects(path: Path, named: list[tuple[str | None, str]]) -> dict[str, Any]:
    """The user's own classes, imported from the modules that the file names."""
    found: dict[str, Any] = {}
    search_here()
    for module, name in named:
        if module is None or module == "builtins" or module.startswith("keras"):
            continue
        try:
            found[name] = getattr(importlib.import_module(module), name)
        except Exception as error:  # the user's code may raise anything
            raise BadCallable(
                f"{path.name} needs `{module}.{name}`, which cannot be imported: {type(error).__name__}: {error}",
                remedy="run in the folder of that code, or put it on PYTHONPATH",
            ) from error
    return found


def _load(path: Path, suffix: str, custom_objects: dict[str, Any], *, trust: bool) -> Any:
    """Keras tells formats by the name's ending: it gets a link with the right one."""
    import keras

    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        try:
            return keras.saving.load_model(str(link), custom_objects=custom_objects, compile=False, safe_mode=not trust)
        except (TypeError, NotImplementedError) as error:
            raise NotAModel(
                f"Keras cannot rebuild the model in {path.name}: {sentence(error)}",
                remedy="build it in a function that loads the weights, and name that: package.module:callable",
            ) from error
        except Exception as error:  # whatever the bytes lead Keras and h5py to
            raise CorruptFile(f"{path.name}: Keras cannot load it: {sentence(error)}", remedy=_AGAIN) from error
