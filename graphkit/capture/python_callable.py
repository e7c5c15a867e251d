"""`package.module:callable` on the command line: the user's own code, imported and called."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from graphkit.errors import BadCallable, ExtraMissing

_FRAMEWORKS = {"torch", "tensorflow", "keras"}
_EXTRAS = {"torch": "torch", "onnxscript": "torch", "tensorflow": "tf", "keras": "tf", "tf2onnx": "tf"}
_SPEC = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")


def is_callable_spec(text: str) -> bool:
    """Whether `text` has the form `package.module:callable`."""
    return _SPEC.match(text) is not None


def build(spec: str, returns: str = "the model") -> Any:
    """What the callable returns when called without arguments; an object that is a model already is returned as is.

    The working directory is importable, as it is for `python -m`.

    Args:
        spec: `package.module:callable`.
        returns: What it should return, for the remedy.

    Raises:
        BadCallable: it cannot be imported, is not there, or raises.
        ExtraMissing: it needs a framework that is not installed.
    """
    if not is_callable_spec(spec):
        raise BadCallable(f"{spec!r} is not package.module:callable", remedy="for example my_project.models:resnet")
    module_name, _, path = spec.partition(":")
    search_here()
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        if extra is None:
            raise _failed(returns, f"cannot import `{module_name}`", error) from error
        raise ExtraMissing(
            f"{spec} needs {error.name}, which is not installed", remedy=f"pip install 'graphkit-onnx[{extra}]'"
        ) from error
    except (Exception, SystemExit) as error:
        raise _failed(returns, f"cannot import `{module_name}`", error) from error
    for part in path.split("."):
        if not hasattr(value, part):
            names = [n for n in dir(value) if not n.startswith("_")]
            raise BadCallable(
                f"{spec}: there is no `{part}` in `{module_name}`", remedy=f"it has: {', '.join(names[:20])}"
            )
        value = getattr(value, part)
    if packages_of(value) & _FRAMEWORKS:
        return value
    if not callable(value):
        raise BadCallable(f"{spec} is a {type(value).__name__}, which cannot be called")
    try:
        return value()
    except (Exception, SystemExit) as error:  # a user's exit code must not become ours
        raise _failed(returns, f"calling {spec}() failed", error) from error


def search_here() -> None:
    """Make the user's own code importable from the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def packages_of(value: Any) -> set[str]:
    """The top packages in which the class of `value` and its bases are defined."""
    return {c.__module__.partition(".")[0] for c in type(value).__mro__}


def _failed(returns: str, what: str, error: BaseException) -> BadCallable:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and Path(f.filename) != Path(__file__)]
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else None
    return BadCallable(
        f"{what}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
        where=where,
        remedy=f"the callable takes no arguments and returns {returns}; it is looked up from the working directory",
    )
