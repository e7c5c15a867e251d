"""For tests: `assert_parity`, and `pytest --graphkit-report parity.md`, which collects what was compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from graphkit.parity.verdict import ParityReport
    from graphkit.shapes import TensorSpec

_compared: list[tuple[str, ParityReport]] = []


def assert_parity(
    reference: Any,
    *candidates: Any,
    shapes: Mapping[str, Sequence[int | str] | TensorSpec] | None = None,
    dims: Mapping[str, tuple[int, int, int] | int] | None = None,
    metrics: Sequence[str] = (),
    **options: Any,
) -> ParityReport:
    """Fail the test unless every candidate computes what the reference does. What could not run fails too.

    Args:
        reference, candidates: As in `validate`.
        shapes, dims: As in `convert`; where None, as the first ONNX side has them.
        metrics: Conditions as on the command line: `snr>=40`, `logits:top5>=0.99`.
        options: The other fields of `ValidateRequest`.

    Raises:
        AssertionError: with the report as its message.
        GraphkitError: they cannot be compared.

    Example:
        >>> def test_the_export():
        ...     assert_parity(my_project.net(), "model.onnx", dims={"batch": (1, 4, 8)}, metrics=["snr>=60"])
    """
    __tracebackhide__ = True
    from graphkit.comparison import ValidateRequest, status_of, validate
    from graphkit.parity.metrics import parse_condition
    from graphkit.report.validate import to_text
    from graphkit.request import as_ranges, as_specs

    request = ValidateRequest(
        shapes=as_specs(shapes or {}),
        dims=as_ranges(dims or {}),
        conditions=tuple(map(parse_condition, metrics)),
        **options,
    )
    report = validate(reference, candidates, request)
    _compared.append((os.environ.get("PYTEST_CURRENT_TEST", "").partition(" (")[0], report))
    if status_of(report) != "pass":
        raise AssertionError(to_text(report, status_of(report)).plain)
    return report


# --- hooks of pytest ---------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--graphkit-report`."""
    group = parser.getgroup("graphkit")
    group.addoption("--graphkit-report", metavar="F.md", help="Write what assert_parity compared, as Markdown.")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what would lose a part of the report."""
    import pytest

    _compared.clear()
    if config.getoption("graphkit_report") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--graphkit-report collects in one process: leave out -n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report, with a heading per test."""
    path = session.config.getoption("graphkit_report")
    if path:
        from graphkit import atomic
        from graphkit.comparison import status_of
        from graphkit.report.markdown import to_markdown

        parts = [f"## `{test}`\n\n{to_markdown(report, status_of(report))}" for test, report in _compared]
        text = "\n".join(parts) if parts else "assert_parity compared nothing.\n"
        atomic.write_bytes(Path(path), text.encode())
