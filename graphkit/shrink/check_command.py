"""`--check CMD`: the user's own command, which fails by its exit status."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

from graphkit.errors import BadOption
from graphkit.shrink.failure import Failure, of_exit
from graphkit.shrink.trial import Trial, write_inputs

_MODEL, _INPUTS = "{model}", "{inputs}"
_TAIL = 8192


class CommandCheck:
    """Runs a command on each candidate, without a shell; it fails if the exit status is not 0.

    Args:
        command: `{model}` stands for the candidate's file, `{inputs}` for a folder with one `.npy` for each input: the
            command is run once for each set of inputs then.
        timeout: Seconds after which it is ended, which is a failure of its own kind.

    Raises:
        BadOption: it names no `{model}`, or there is no such program.
    """

    def __init__(self, command: str, timeout: float | None = None) -> None:
        self.label = command
        self.timeout = timeout
        self.words = _words(command)
        self.each_sample = self.needs_values = any(_INPUTS in word for word in self.words)

    def run(self, trial: Trial, sample: int | None) -> Failure | None:
        """See `Check.run`."""
        inputs = ""
        if sample is not None and self.each_sample:
            inputs = str(write_inputs(trial.path.parent / "inputs", trial.samples)[sample])
        words = [w.replace(_MODEL, str(trial.path)).replace(_INPUTS, inputs) for w in self.words]
        status, said = self._ended(words)
        if status is None:
            return Failure(("timeout",), f"no end after {self.timeout:g} s")
        return of_exit(status, said, trial.names) if status else None

    def _ended(self, words: Sequence[str]) -> tuple[int | None, str]:
        """Exit status, None after a timeout; and the end of what it said, on stderr if it said something there."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )  # a session of its own: what it has started ends with it
            try:
                status: int | None = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(process)
            return status, _tail(err) or _tail(out)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadOption(f"--check {command!r} cannot be read: {error}", remedy="close every quote") from error
    example = "--check 'python check.py {model}'"
    if not any(_MODEL in word for word in words):
        raise BadOption(f"--check {command!r} does not say where the model goes", remedy=example)
    if shutil.which(words[0]) is None:
        raise BadOption(
            f"--check: there is no program {words[0]!r}",
            remedy=f"{example}; it is run without a shell: write sh -c '...' where you need one",
        )
    return words


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    return file.read().decode("utf-8", "replace").strip()
