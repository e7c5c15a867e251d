"""What a failing check says, in a form that two different models can have in common."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphkit.errors import BuildFailed, GraphkitError, NativeCrash

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure.

    Attributes:
        reasons: What went wrong, without the names, numbers and paths that change when the model does. Two failures
            are the same if the first one's leading reason is among the other's.
        text: The same for people, as it was printed.
        tolerances: Of outputs that were compared: atol and rtol.
    """

    reasons: tuple[str, ...]
    text: str
    tolerances: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The leading one: what is kept while a model is reduced."""
        return self.reasons[0]


def of_error(error: GraphkitError, names: Collection[str] = ()) -> Failure:
    """The failure that an error tells of; of a refused engine, one reason for each operator.

    Args:
        names: Of nodes and tensors, which say nothing about the kind of failure.
    """
    text = "\n".join((f"{error.code}: {error.message}", *error.details))
    if isinstance(error, NativeCrash):
        return Failure((f"{error.code}: {_how_it_died(error.data.get('status'))}",), text)
    refused = [f"{error.code}: {n['operator']}: {normalised(n['reason'], names)}" for n in error.data.get("nodes", ())]
    if refused:
        return Failure(tuple(dict.fromkeys(refused)), text)
    message = error.message
    if isinstance(error, BuildFailed) and error.data.get("lines"):
        message = str(error.data["lines"][0])
    return Failure((f"{error.code}: {normalised(message, names)}",), text)


def of_exit(status: int, output: str, names: Collection[str] = ()) -> Failure:
    """The failure of a command: its exit status and the last line that it printed; of a signal, that alone.

    Args:
        status: As `subprocess` gives it: negative for a signal.
        output: The end of what it printed.
    """
    lines = [line for line in output.splitlines() if line.strip()]
    how = _how_it_died(status)
    text = "\n".join([how, *lines[-8:]])
    if status < 0 or not lines:
        return Failure((how,), text)
    return Failure((f"{how}: {normalised(lines[-1], names)}",), text)


def normalised(line: str, names: Collection[str] = ()) -> str:
    """A message without what changes from model to model.

    Paths become PATH, what is quoted becomes '...', numbers N, and words that name a node or a tensor NAME.
    """
    known = frozenset(names)
    line = " ".join(line.split())
    line = re.sub(r"(?:[A-Za-z]:)?(?:[\w.~+-]*/)+[\w.+-]*", "PATH", line)
    line = re.sub(r"`[^`]*`|\"[^\"]*\"|'[^']*'", "'...'", line)
    line = re.sub(r"[^\s()\[\]{},;:='\"]+", lambda m: "NAME" if m[0].rstrip(".") in known else m[0], line)
    line = re.sub(r"(?<![A-Za-z_])(?:0x[0-9a-fA-F]+|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)", "N", line)
    return line[:_LONGEST]


def _how_it_died(status: Any) -> str:
    if not isinstance(status, int):
        return "crash"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
