"""Memory of the process that asks, and of its GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident() -> dict[str, int | None]:
    """Bytes of this process that are in memory: `now`, and the most there were since it started; None where the
    system does not say (only Linux does)."""
    try:
        text = _STATUS.read_text(encoding="ascii", errors="replace")
        lines = dict(line.partition(":")[::2] for line in text.splitlines())
        return {"now": 1024 * int(lines["VmRSS"].split()[0]), "peak": 1024 * int(lines["VmHWM"].split()[0])}
    except (OSError, KeyError, ValueError, IndexError):
        return {"now": None, "peak": None}


def gpu_free() -> int | None:
    """Free bytes of the current GPU, by cudaMemGetInfo; None without a CUDA runtime and a GPU."""
    from polygraphy import cuda

    try:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        status: int = cuda.wrapper().handle.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    except Exception:  # Polygraphy raises its own where there is no libcudart
        return None
    return free.value if status == 0 else None
