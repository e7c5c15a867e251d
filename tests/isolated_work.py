"""Functions that the tests of `graphkit.isolate` call in a child."""

import ctypes
import os
import signal
import sys
import time
from typing import Any

from graphkit.errors import BadOption
from graphkit.events import emit


def echo(value: Any) -> Any:
    return value


def refuse() -> None:
    raise BadOption("no", where="there", remedy="this", details=("a",), data={"n": 1})


def divide() -> float:
    return 1 / 0


def segfault() -> None:
    ctypes.string_at(0)


def die_with_words() -> None:
    print("on stdout", flush=True)
    print("on stderr", file=sys.stderr, flush=True)
    os._exit(3)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_memory() -> None:
    raise MemoryError


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def chatter() -> str:
    print("to stdout")
    os.system("echo from another process")
    return "answer"


def progress() -> None:
    for done in (1, 2):
        emit("progress", phase="build", done=done, total=2)
