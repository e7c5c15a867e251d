"""The child's side of `graphkit.isolate`: read a call, run it, write its result; one JSON object a line."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from typing import IO, Any

from graphkit import events
from graphkit.errors import GraphkitError, OutOfMemory


def main(without: str, *preload: str) -> None:
    """Serve calls from standard input until it ends."""
    replies = _claim_stdout()
    _die_with_parent()
    sys.meta_path.insert(0, _KeptOut(frozenset(without.split(","))))
    for module in preload:
        with contextlib.suppress(ImportError):  # the call that needs it says so, with the remedy
            importlib.import_module(module)
    with events.listening(lambda event: _reply(replies, event)):
        for line in sys.stdin:
            _reply(replies, _serve(json.loads(line)))


class _KeptOut:
    """An import hook for which some packages are not installed."""

    def __init__(self, packages: frozenset[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"No module named {name!r}: it is kept out of this child", name=name)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    try:
        module, _, function = request["function"].partition(":")
        return {"result": getattr(importlib.import_module(module), function)(**request["arguments"])}
    except GraphkitError as error:
        return {"error": error.to_json()}
    except MemoryError:
        return {"error": OutOfMemory(f"{request['function']} could not allocate memory").to_json()}
    except Exception as error:
        return {"bug": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _claim_stdout() -> IO[str]:
    """Keep the pipe for replies; what libraries print goes to the log."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _die_with_parent() -> None:
    """A killed parent must not leave a build running for minutes. (The kernel's own signal for this, PDEATHSIG, also
    comes when the thread ends that started the child.)"""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
