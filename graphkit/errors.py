"""Every error that graphkit raises on purpose: one class per code.

    GraphkitError
    ├── Refused      GK1xx  exit 1   the answer is no: it cannot be captured, built, or is not equal
    ├── BadRequest   GK2xx  exit 2   the request or the file is bad
    ├── Lacking      GK3xx  exit 3   this machine lacks something
    └── Broken       GK4xx  exit 4   a bug, or a crash in native code

The first digit of a code is its exit code. The docstring of each class is its page under `docs/errors/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class GraphkitError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What is wrong, in one line, with the value that is wrong.
        where: Where in the user's model or request: `file.py:12 in Gate.forward (module head.gate)`, or a node.
        remedy: What to do about it: a command or an edit.
        details: Further lines for people (each is printed below `where`).
        data: Facts for `--json`; JSON values only.
    """

    code: ClassVar[str] = "GK000"
    exit_code: ClassVar[int] = 4

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        details: tuple[str, ...] = (),
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.details = tuple(details)
        self.data = dict(data or {})

    def to_json(self) -> dict[str, Any]:
        """The error as strict JSON values; `from_json` is its inverse."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "remedy": self.remedy,
            "details": list(self.details),
            "data": self.data,
        }

    def render(self) -> str:
        """The error as the command line prints it, without colour."""
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        lines.extend(f"         {line}" for line in self.details)
        if self.remedy:
            lines.append(f"  try:   {self.remedy}")
        return "\n".join(lines)


class Refused(GraphkitError):
    """The answer is no."""

    exit_code = 1


class BadRequest(GraphkitError):
    """The request or the file is bad."""

    exit_code = 2


class Lacking(GraphkitError):
    """This machine lacks something."""

    exit_code = 3


class Broken(GraphkitError):
    """A bug, or a crash in native code."""

    exit_code = 4


# --- GK1xx: the answer is no -------------------------------------------------------------------------------------


class CaptureFailed(Refused):
    """No way of capturing the model succeeded. The message holds the cause given by the first way; the others
    are listed below it, each with its own cause."""

    code = "GK101"


class UnsupportedOperator(Refused):
    """The model calls an operator that has no ONNX translation; the first one is named, with its line. Replace it in
    the model, or convert the part around it with `--submodule`."""

    code = "GK102"


class FrozenDimension(Refused):
    """A dimension that was asked to be dynamic is a constant in the captured graph: the graph would be wrong, or
    refuse to run, at every other size. Make the model independent of that size, or ask for a static dimension."""

    code = "GK103"


class DataDependentBranch(Refused):
    """The model's Python code takes a branch (or loops) depending on a tensor's value. Exporting one recorded path
    would be wrong on the others. `--via script` keeps both branches as ONNX `If` and `Loop` where TorchScript can
    compile the module; otherwise write the branch with `torch.where` or `torch.cond`."""

    code = "GK104"


class ShapeDependentBranch(Refused):
    """The model's Python code takes a branch depending on an input's size, so the captured graph is right only for
    a part of the sizes that were asked for. Narrow `--dim` to the range that is given, or keep the branch with
    `--via script`."""

    code = "GK105"


class FrozenScalar(Refused):
    """A Python int, float or bool argument was baked into the graph as a constant, although a value for it was
    given as an input. Pass it as a tensor, or use `--via script`, which keeps it as an input."""

    code = "GK106"


class StateMutated(Refused):
    """The model changes its own attributes or buffers while it runs. An ONNX graph has no memory between runs, so
    the change would be lost. Turn the state into an input and an output, or convert the part of the model that
    does not keep state with `--submodule`."""

    code = "GK107"


class OpsetNotHonoured(Refused):
    """The exporter cannot express the model at the opset that was asked for. Ask for the opset that is named, or
    leave the choice to graphkit."""

    code = "GK108"


class InvalidExport(Refused):
    """The exporter reported success but its model is not valid ONNX, or ONNX Runtime cannot load it. Nothing was
    written."""

    code = "GK109"


class TargetUnsupported(Refused):
    """The target cannot take the model: TensorRT's parser refuses the nodes listed here, or the GPUs that were named
    lack what they compute with. Each is given with its module path and source line."""

    code = "GK110"


class BuildFailed(Refused):
    """TensorRT accepted every node but could not build the engine; its own reason is given. No file was left."""

    code = "GK111"


class ParityFailed(Refused):
    """The converted model does not compute the same thing as the source within the stated tolerance, or one of them
    could not run on inputs inside the declared ranges. The output was not left behind; the report was."""

    code = "GK112"


class OptimizationFailed(Refused):
    """The optimiser could not process the model. `--no-optimize` converts without it."""

    code = "GK113"


class PrecisionRefused(Refused):
    """The model cannot be brought to the precision that was asked for: it has it already, no layer that multiplies
    would really run in it, or the model holds something that cannot be lowered. Nothing was written."""

    code = "GK114"


class TargetsLeftOut(Refused):
    """An engine was built, and written, for some of the compute capabilities that were asked for; it does not run on
    the ones listed here, each with its reason. Leave them out of `--cc`, or change the model as the remedy says."""

    code = "GK115"


# --- GK2xx: the request or the file is bad ------------------------------------------------------------------------


class FileMissing(BadRequest):
    """There is no such file or folder."""

    code = "GK201"


class UnknownFormat(BadRequest):
    """The file's content is none of the formats that graphkit reads. The extension plays no part: what the content
    looks like is said."""

    code = "GK202"


class CorruptFile(BadRequest):
    """The file is of a known format but is truncated or damaged."""

    code = "GK203"


class UntrustedSource(BadRequest):
    """Loading the file would run code that it names. Nothing was loaded. Pass `--trust` only for files whose author
    you trust as you trust a program; or save the model as TorchScript, `.pt2` or a state_dict."""

    code = "GK204"


class ArchitectureMissing(BadRequest):
    """The file holds weights only (a state_dict or checkpoint). Weights are not a model: name the code that builds
    it with `--model package.module:callable`."""

    code = "GK205"


class ShapeMissing(BadRequest):
    """An input of the model has no known shape. Give one with `--shape name=batch,3,224,224`, or sample values with
    `--input name=file.npy`."""

    code = "GK206"


class ShapeMismatch(BadRequest):
    """The shape or dtype that was given does not fit the model, or the model's own code rejects it."""

    code = "GK207"


class UnknownName(BadRequest):
    """A name in the request (an input, a dimension, a submodule, an output) does not exist. The names that do exist
    are listed."""

    code = "GK208"


class BadDimRange(BadRequest):
    """A `--dim` range is not `min:opt:max` with 1 <= min <= opt <= max, or a symbolic dimension that the target
    needs a range for has none."""

    code = "GK209"


class UnknownTarget(BadRequest):
    """The compute capability, backend or target is not one that the installed library knows. The known ones are
    listed."""

    code = "GK210"


class CannotWrite(BadRequest):
    """The output cannot be written: the folder is missing or read-only, or the path is a folder."""

    code = "GK211"


class BadOption(BadRequest):
    """An option's value is malformed, or options contradict one another."""

    code = "GK212"


class BadCallable(BadRequest):
    """`package.module:callable` could not be imported or called, or returned something that is not a model."""

    code = "GK213"


class BadSample(BadRequest):
    """A sample input file could not be read, or its dtype or shape does not fit the model."""

    code = "GK214"


class WeightsMismatch(BadRequest):
    """The weights file does not fit the architecture: names or shapes differ. They are listed."""

    code = "GK215"


class NotAModel(BadRequest):
    """The Python object is of a type that graphkit cannot capture."""

    code = "GK216"


class UnsafePath(BadRequest):
    """The model refers to data outside its own folder, or through a link. Nothing was read from there."""

    code = "GK217"


# --- GK3xx: this machine lacks something --------------------------------------------------------------------------


class ExtraMissing(Lacking):
    """A Python package that this request needs is not installed. The remedy is the command that installs it."""

    code = "GK301"


class GpuRequired(Lacking):
    """The request needs an NVIDIA GPU and its driver; none is visible here."""

    code = "GK302"


class LibraryTooOld(Lacking):
    """An installed library is too old to be safe or to work. The remedy names the version."""

    code = "GK303"


# --- GK4xx: a bug, or a crash in native code ----------------------------------------------------------------------


class NativeCrash(Broken):
    """Native code (TensorRT, onnxsim, a framework) crashed in its child process. graphkit itself is unharmed, and
    nothing was written. The child's last lines are given."""

    code = "GK401"


class TimedOut(Broken):
    """Work in a child process took longer than its limit and was ended."""

    code = "GK402"


class OutOfMemory(Broken):
    """A child process ran out of memory."""

    code = "GK403"


class InternalError(Broken):
    """A bug in graphkit. The traceback is in the report file that is named; please attach it to an issue."""

    code = "GK404"


def all_errors() -> Iterator[type[GraphkitError]]:
    """Every error class that has a code of its own, in the order of the codes."""
    found: list[type[GraphkitError]] = []
    pending: list[type[GraphkitError]] = [GraphkitError]
    while pending:
        for sub in pending.pop().__subclasses__():
            pending.append(sub)
            if "code" in vars(sub):
                found.append(sub)
    return iter(sorted(found, key=lambda e: e.code))


def from_json(data: Mapping[str, Any]) -> GraphkitError:
    """Rebuild an error that crossed a process boundary as `to_json()`."""
    by_code = {cls.code: cls for cls in all_errors()}
    cls = by_code.get(str(data["code"]), InternalError)
    return cls(
        str(data["message"]),
        where=data.get("where"),
        remedy=data.get("remedy"),
        details=tuple(data.get("details") or ()),
        data=data.get("data") or {},
    )
