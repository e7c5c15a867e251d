"""Asks each library what it sees, each in a process of its own, all at the same time."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphkit.doctor.facts import Gpu, Probe, ProbeStatus

CHILD = Path(__file__).with_name("child.py")
DRIVER_PROBES = ("driver", "cudart", "cudnn")
LIBRARY_PROBES = ("torch", "tensorflow", "onnxruntime", "tensorrt", "tensorrt_rtx")
NAMES = (*DRIVER_PROBES, *LIBRARY_PROBES)


def run_probes(names: Sequence[str] = NAMES, *, timeout: float = 30.0) -> tuple[Probe, ...]:
    """Run the probes in parallel and return their results in the order of `names`.

    A probe that crashes, hangs or cannot import its library is a result like any other: nothing is raised for it.

    Args:
        names: Some of `NAMES`.
        timeout: Seconds that each probe may take.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        return tuple(pool.map(lambda name: _probe(name, timeout), names))


def _probe(name: str, timeout: float) -> Probe:
    if name in LIBRARY_PROBES and not _installed(name):
        return Probe(name, "not installed", "not installed")
    # -P: neither the folder of child.py nor the user's working directory may shadow a library.
    command = [sys.executable, "-P", str(CHILD), name]
    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except OSError as error:
        return Probe(name, "failed", f"could not start: {error.strerror}")
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(child)
        return Probe(name, "timed out", f"timed out after {timeout:g} s")
    return _read(name, child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # a module in sys.modules without a __spec__
        return True


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    # A process stuck inside a broken driver does not die even of SIGKILL: it must not take doctor with it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=2)


def _read(name: str, code: int, out: str, err: str) -> Probe:
    if code != 0:
        return Probe(name, "crashed", _ending(code) + _last_line(err))
    try:
        facts = json.loads(out)
    except ValueError:
        return Probe(name, "failed", f"ended without an answer{_last_line(err)}")
    if "error" in facts:
        return Probe(name, "failed", without_paths(_first_line(str(facts["error"]))))
    gpus = tuple(Gpu(gpu["name"], gpu["cc"], gpu["memory"]) for gpu in facts.pop("gpus", ()))
    status, detail = _summary(name, facts, gpus)
    return Probe(name, status, detail, gpus, facts)


def _ending(code: int) -> str:
    if code > 0:
        return f"crashed with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"crashed with signal {-code} ({signal.Signals(-code).name})"
    return f"crashed with signal {-code}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:200]


def _last_line(text: str) -> str:
    line = _first_line("\n".join(reversed(text.splitlines())))
    return f": {without_paths(line)}" if line else ""


def without_paths(text: str) -> str:
    """`text` with every absolute path cut to its last part, so that no report tells where the user's files are."""
    for folder in (str(Path.home()), sys.prefix):
        text = text.replace(folder, "") if len(folder) > 1 else text
    return re.sub(r"(?<!\w)(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'\"()]+[/\\])*(?=[^\s/\\])", "", text)


def _summary(name: str, facts: dict[str, Any], gpus: tuple[Gpu, ...]) -> tuple[ProbeStatus, str]:
    if name == "driver":
        return _driver_summary(facts, gpus)
    if name in ("cudart", "cudnn"):
        found = [f"{each['version']} ({each['from']})" for each in facts["found"]]
        return ("ok", ", ".join(found)) if found else ("not installed", "not found")
    if name == "onnxruntime":
        return "ok", ", ".join(provider.removesuffix("ExecutionProvider") for provider in facts["providers"])
    if name == "tensorrt_rtx":
        return "ok", "builds for " + ", ".join(facts["targets"])
    if name == "tensorrt":
        return "ok", "makes a builder" if facts["builder"] else "loads, but makes no builder"
    if facts["cuda"] is None:
        return "ok", "built without CUDA"
    return "ok", f"built for CUDA {facts['cuda']}; " + ("sees its GPUs" if gpus else "sees no GPU")


def _driver_summary(facts: dict[str, Any], gpus: tuple[Gpu, ...]) -> tuple[ProbeStatus, str]:
    if "missing" in facts:
        return "not installed", str(facts["missing"])
    known = f"driver {facts['version'] or 'of unknown version'}, CUDA up to {facts.get('cuda', 'unknown')}"
    if facts.get("init"):
        return "ok", f"{known}; cuInit failed with {facts['init']} ({facts['init_name'] or 'unknown error'})"
    return "ok", known if gpus else f"{known}; no GPU"
