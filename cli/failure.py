"""How a command that failed is shown, and the report file of a bug."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path

import click

from graphkit import __version__, atomic
from graphkit.errors import BadOption, CannotWrite, GraphkitError, InternalError
from graphkit.report.wording import printable

_LIBRARIES = (
    "click",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxsim",
    "polygraphy",
    "torch",
    "tensorrt-rtx",
    "tensorrt",
)


def as_error(exception: Exception) -> GraphkitError:
    """Any exception as a GraphkitError: click's as `BadOption`, an unknown one as `InternalError` with a report file.

    An `InternalError` that has no report file yet gets one, so that its message keeps what its page promises.
    """
    if isinstance(exception, click.ClickException):
        return _bad_usage(exception)
    if isinstance(exception, InternalError):
        return exception if "report" in exception.data else _reported(exception, exception.message, exception.data)
    if isinstance(exception, GraphkitError):
        return exception
    return _reported(exception, f"{type(exception).__name__}: {exception}", {})


def show(error: GraphkitError, cause: BaseException | None = None, *, verbose: int = 0) -> None:
    """Print `error` to stderr; with `-vv` the traceback of `cause` (and of the child process) above it.

    In colour only on a terminal, and not where NO_COLOR is set.
    """
    if verbose >= 2:
        click.echo("".join(traceback.format_exception(cause or error)), err=True, nl=False)
        if "traceback" in error.data:
            click.echo(f"In the child process:\n{error.data['traceback']}", err=True)
    first, *rest = printable(error.render()).split("\n")
    if coloured():
        head, colon, message = first.partition(":")
        first = click.style(head + colon, fg="red", bold=True) + click.style(message, bold=True)
        rest = [_highlighted(line) for line in rest]
    # click would strip what it believes is not for this stream: the decision was made above.
    click.echo("\n".join([first, *rest]), err=True, color=coloured())


def coloured() -> bool:
    """Whether stderr is a terminal that wants colour."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _highlighted(line: str) -> str:
    for label in ("  where:", "  try:"):
        if line.startswith(label):
            return click.style(label, fg="cyan") + line.removeprefix(label)
    return line


def _bad_usage(exception: click.ClickException) -> GraphkitError:
    context = getattr(exception, "ctx", None)
    command = context.command_path if context is not None else "graphkit"
    return BadOption(_usage_message(exception), remedy=f"{command} --help")


def _usage_message(exception: click.ClickException) -> str:
    if isinstance(exception, click.NoSuchOption):
        near = get_close_matches(exception.option_name, exception.possibilities or (), n=1)
        return f"no such option {exception.option_name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return " ".join(exception.format_message().split()).rstrip(".")


def _reported(cause: BaseException, message: str, data: dict[str, object]) -> InternalError:
    report = _write_report(cause, str(data.get("traceback") or ""))
    remedy = "attach that file to an issue of graphkit" if report else "run it again with -vv to see the traceback"
    error = InternalError(
        f"a bug in graphkit: {' '.join(message.split())}",
        details=(f"report: {report}" if report else "a report file could not be written",),
        remedy=remedy,
        data={**data, "report": str(report) if report else None},
    )
    return error.with_traceback(cause.__traceback__)


def _write_report(cause: BaseException, child_traceback: str) -> Path | None:
    text = "\n".join(
        [
            f"graphkit {__version__}",
            f"python {sys.version}",
            f"platform {sys.platform}",
            *(f"{name} {version}" for name, version in _versions()),
            f"arguments {sys.argv[1:]!r}",
            "",
            "".join(traceback.format_exception(cause)),
            *(["In the child process:", child_traceback] if child_traceback else []),
        ]
    )
    name = f"graphkit-bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (os.getcwd, tempfile.gettempdir):
        try:
            path = Path(folder()) / name
            atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"))
            return path
        except (CannotWrite, OSError):
            continue  # the next folder; None at the end says that there is no report
    return None


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, "not installed"))
    return found
