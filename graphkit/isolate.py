"""Native work in a child process, so that a crash there is one clear error here.

A `Worker` is a child that imports its libraries once and then serves calls, one at a time. A call names a function
(`package.module:function`) and passes JSON values; tensors and models travel as files. The child's standard output
and error go to a log whose last lines are quoted when it dies. Nothing that the child sends is unpickled.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from graphkit import events
from graphkit.errors import InternalError, NativeCrash, OutOfMemory, TimedOut, from_json

_LAST_LINES = 6


class Worker:
    """A child process that serves calls.

    Args:
        name: What it is called in errors: `TensorRT-RTX`, `onnxsim`.
        preload: Modules to import at once, while the parent does something else.
        env: Environment variables to set in the child only.
        without: Packages that the child does as if they were not installed: some libraries import every framework
            that they find.
    """

    def __init__(
        self,
        name: str,
        *,
        preload: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._without = tuple(without)
        self._preload = tuple(preload)
        self._env = dict(env or {})
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._log: IO[bytes] | None = None
        self._log_start = 0  # of what the current call printed
        self._busy = threading.Lock()

    def start(self) -> None:
        """Start the child, if it is not running, without waiting for its imports."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._replies = queue.Queue()
        self._process = subprocess.Popen(
            # -P: a file called onnx.py beside the user's model must not be imported in place of the library.
            [sys.executable, "-P", "-m", "graphkit.isolate_child", ",".join(self._without), *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": _python_path(), **self._env},
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=_pump, args=(self._process.stdout, self._replies), daemon=True).start()

    def call(self, function: str, /, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Run `function(**arguments)` in the child and return its result (JSON values).

        Events that the child emits are emitted here.

        Raises:
            GraphkitError: what the function raised.
            NativeCrash: the child died. `OutOfMemory`: it was killed or could not allocate. `TimedOut`: it took
                longer than `timeout` seconds. The next call starts a new child.
            InternalError: the function raised anything else; the traceback is in `data`.
        """
        with self._busy:
            self._send({"function": function, "arguments": arguments})
            return self._receive(function, timeout)

    def _send(self, request: dict[str, Any]) -> None:
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._log is not None
        self._log_start = os.fstat(self._log.fileno()).st_size
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death(request["function"]) from None

    def _receive(self, function: str, timeout: float | None) -> Any:
        while True:
            try:
                line = self._replies.get(timeout=timeout)
            except queue.Empty:
                self.close()
                raise TimedOut(f"{self.name} did nothing for {timeout:g} s in {_short(function)}") from None
            except KeyboardInterrupt:
                self.close()
                raise
            if line is None:
                raise self._death(function)
            reply = json.loads(line)
            if "event" in reply:
                events.emit(**reply)
            elif "error" in reply:
                raise from_json(reply["error"])
            elif "bug" in reply:
                raise InternalError(reply["bug"], data={"traceback": reply["traceback"]})
            else:
                return reply["result"]

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _death(self, function: str) -> NativeCrash | OutOfMemory:
        assert self._process is not None
        status = self._process.wait()
        lines = self._last_lines()
        self.close()
        doing = f"{self.name} ({_short(function)})"
        if status == -signal.SIGKILL:
            return OutOfMemory(
                f"{doing} was killed by the system, most likely for want of memory",
                details=lines,
                remedy="use a machine with more memory, or a smaller model",
            )
        how = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
        return NativeCrash(
            f"{doing} crashed with {how}",
            details=lines,
            remedy="nothing was written; report this to the library's authors with the model that causes it",
            data={"status": status},
        )

    def _last_lines(self) -> tuple[str, ...]:
        if self._log is None:
            return ()
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, end - 4096))
        text = self._log.read().decode("utf-8", "replace")
        return tuple(line.strip()[:200] for line in text.splitlines() if line.strip())[-_LAST_LINES:]


_workers: dict[str, Worker] = {}


FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "transformers")


def worker(
    name: str, *, preload: Sequence[str] = (), env: Mapping[str, str] | None = None, without: Sequence[str] = ()
) -> Worker:
    """The shared worker of this name; the first call decides its libraries and environment."""
    workers, more = _own.get() or (_workers, {})
    if name not in workers:
        workers[name] = Worker(name, preload=preload, env={**(env or {}), **more}, without=without)
    return workers[name]


_own: ContextVar[tuple[dict[str, Worker], Mapping[str, str]] | None] = ContextVar("graphkit_own_workers", default=None)


@contextlib.contextmanager
def own_workers(env: Mapping[str, str]) -> Iterator[None]:
    """Inside the block `worker` starts new ones, with `env` over their own environment; they end with it.

    For measurements: what ran before in a shared child stays in its memory, and its threads are set when it starts.
    """
    workers: dict[str, Worker] = {}
    token = _own.set((workers, dict(env)))
    try:
        yield
    finally:
        _own.reset(token)
        for each in workers.values():
            each.close()


@atexit.register
def close_all() -> None:
    """End every shared worker."""
    for each in _workers.values():
        each.close()
    _workers.clear()


def _pump(pipe: IO[str] | None, replies: queue.Queue[str | None]) -> None:
    if pipe is not None:
        with contextlib.suppress(ValueError):  # closed under us: the worker was ended
            for line in pipe:
                replies.put(line)
    replies.put(None)


def _python_path() -> str:
    """PYTHONPATH with which the child finds the same graphkit, and only what the parent's environment names."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(p for p in (here, os.environ.get("PYTHONPATH", "")) if p)


def _short(function: str) -> str:
    return function.rpartition(":")[2].lstrip("_").replace("_", " ")
