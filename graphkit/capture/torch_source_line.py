"""The user's own line: from stack frames and from what the exporters record about nodes."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

from graphkit.model import SourceLine

_FRAME = re.compile(r'File "([^"]+)", line (\d+)(?:, in (\S+))?')
_INSTALLED = re.compile(r".*/(?:site|dist)-packages/")
_STANDARD_LIBRARY = re.compile(r".*/lib/python3\.\d+/")
_TORCH_ELSEWHERE = re.compile(
    r".*/torch/(?:nn|jit|fx|utils|autograd|functional\.py|_\w+)\b"
)  # in somebody else's archive
_FRAMEWORKS = ("torch/", "onnxscript/", "onnx_ir/", "graphkit/")
_GRAPHKIT = Path(__file__).resolve().parents[1].as_posix() + "/"


def user_frame(text: str) -> tuple[str, int, str | None] | None:
    """The innermost frame of a printed stack trace that is not inside a framework."""
    frames = [(file, int(line), function) for file, line, function in _FRAME.findall(text)]
    own = [f for f in frames if is_users(f[0])]
    return own[-1] if own else None


def is_users(file: str) -> bool:
    """Whether a file is the user's, or a library's that builds on the framework (transformers, timm)."""
    path = file.replace("\\", "/")
    if path.startswith(("<", _GRAPHKIT)):
        return False
    inside = _INSTALLED.sub("", path)
    if inside != path or not path.startswith("/"):
        return not inside.startswith(_FRAMEWORKS)
    return not (_STANDARD_LIBRARY.match(path) or _TORCH_ELSEWHERE.match(path))


def shown(file: str) -> str:
    """A file name that says the same on every machine: relative to the working directory, or to its package root."""
    path = Path(file)
    if not path.is_absolute():
        return file
    inside_packages = _INSTALLED.sub("", file.replace("\\", "/"))
    if inside_packages != file:
        return inside_packages
    roots = [Path.cwd(), *(Path(p) for p in (sysconfig.get_paths()["purelib"], *sys.path) if p)]
    inside = [path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)]
    return min(inside, key=len, default=path.name)


def line_of(text: str, module: str = "", classes: Sequence[str] = ()) -> SourceLine | None:
    """The user's line in a printed stack trace.

    Args:
        text: A stack trace as torch records it.
        module: Path of the module that runs.
        classes: Classes of the modules on the way there, outermost first.
    """
    frame = user_frame(text)
    if frame is None:
        return None
    file, line, function = frame
    own = [c for c in classes if not c.startswith(("torch.", "aten.", "prims."))]
    name = f"{own[-1].rpartition('.')[2]}.{function}" if own and function == "forward" else function
    return SourceLine(module, shown(file), line, name)


def line_of_error(error: BaseException) -> SourceLine | None:
    """The user's line that an exception passed through, innermost."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if is_users(frame.f_code.co_filename):
            found = SourceLine("", shown(frame.f_code.co_filename), line, frame.f_code.co_qualname)
    return found


def code_at(line: SourceLine | None) -> str | None:
    """The text of the line, where the file can be read."""
    import linecache

    if line is None or line.file is None or line.line is None:
        return None
    for folder in ("", *sys.path):
        text = linecache.getline(str(Path(folder) / line.file), line.line).strip()
        if text:
            return text
    return None
