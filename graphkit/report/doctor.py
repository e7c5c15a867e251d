"""A `Diagnosis` as text on one screen, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphkit.doctor.facts import Diagnosis, Probe, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TITLES = {
    "driver": "NVIDIA driver",
    "cudart": "CUDA runtime",
    "cudnn": "cuDNN",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
}
VERDICTS = {
    ("onnx", "onnx"): "onnx from ONNX",
    ("onnx", "torch"): "onnx from PyTorch",
    ("ort", "cpu"): "ort on the CPU",
    ("ort", "cuda"): "ort on CUDA",
    ("trt", "rtx"): "trt (TensorRT-RTX)",
    ("trt", "tensorrt"): "trt (TensorRT)",
}
GIB = 1024**3


def to_json(diagnosis: Diagnosis) -> str:
    """The diagnosis as strict JSON with sorted keys: the same machine gives the same bytes."""
    return json.dumps(diagnosis.to_json(), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)


def print_text(diagnosis: Diagnosis, console: Console) -> None:
    """Print the diagnosis: libraries, what each sees of the GPU, what can be built and run, and what would help."""
    from rich.text import Text

    machine = diagnosis.machine
    console.print(
        f"[bold]graphkit doctor[/]  {machine.implementation} {machine.python}, {machine.system} "
        f"{machine.architecture}, {machine.cpus} CPUs",
        highlight=False,
    )
    console.print(_section("Libraries", _libraries(diagnosis)))
    console.print(_section("Seen by", ((TITLES[probe.name], _probe(probe)) for probe in diagnosis.probes)))
    console.print(_section("Can build", map(_verdict, diagnosis.build)))
    console.print(_section("Can run", map(_verdict, diagnosis.run)))
    if diagnosis.remedies:
        console.print(Text("To change that", style="bold"))
    for remedy in diagnosis.remedies:
        # Never wrapped by us: a command must survive being copied.
        console.print(Text(f"  {remedy}", style="cyan"), soft_wrap=True)


def _section(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=9)
    table.add_column(width=max(map(len, VERDICTS.values())))
    table.add_column(overflow="fold")
    for index, (name, body) in enumerate(rows):
        head = Text(title if index == 0 else "", style="bold")
        table.add_row(head, Text(name, no_wrap=True), Text(body, style="red" if body.startswith("no ") else ""))
    return table


def _libraries(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    libraries, fit = diagnosis.libraries, diagnosis.fit
    present = ", ".join(f"{each.name} {each.version}" for each in libraries if each.version)
    absent = ", ".join(each.name for each in libraries if not each.version)
    rows = [("installed", present or "none"), ("not installed", absent)] if absent else [("installed", present)]
    findings = [f"no  {conflict.what}" for conflict in fit.conflicts]
    if not findings and fit.checked:
        findings = [f"yes  all {fit.checked} declared requirements hold"]
    if fit.reason:
        findings.append(fit.reason)
    return rows + [("fit each other" if index == 0 else "", finding) for index, finding in enumerate(findings)]


def _probe(probe: Probe) -> str:
    gpus = [
        f"{gpu.name}, compute capability {gpu.compute_capability or 'unknown'}"
        + (f", {gpu.memory / GIB:.0f} GiB" if gpu.memory else "")
        for gpu in probe.gpus
    ]
    return "; ".join([probe.detail, *gpus])


def _verdict(verdict: Verdict) -> tuple[str, str]:
    return VERDICTS[verdict.target, verdict.by], f"{'yes' if verdict.can else 'no '}  {verdict.reason}"
