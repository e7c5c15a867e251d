"""One probe per process: `python -P child.py NAME` prints what NAME sees of this machine as one JSON line.

Runs as a plain file and imports nothing of graphkit, so that only the probed library can make it fail. Everything the
libraries print on file descriptor 1 goes to stderr; the JSON line alone goes to the real stdout.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

CUDA_OK = 0
ATTRIBUTE_CC_MAJOR, ATTRIBUTE_CC_MINOR = 75, 76  # CUdevice_attribute of cuda.h


def main(name: str) -> None:
    """Run the probe called `name`, and leave without running any library's exit handlers."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        facts = PROBES[name]()
    except Exception as error:  # whatever a library raises on import is this probe's answer
        facts = {"error": f"{type(error).__name__}: {error}"}
    os.write(answer, (json.dumps(facts) + "\n").encode())
    # TensorRT and CUDA libraries are known to crash while Python tears them down; the answer is already out.
    os._exit(0)


def driver() -> dict[str, Any]:
    """The NVIDIA driver through libcuda: its version, the CUDA version that it supports, and its GPUs."""
    facts: dict[str, Any] = {
        "version": _driver_version(),
        "on_pci": _nvidia_on_pci(),
        "container": any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        "hidden": os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
    }
    cuda = _load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if cuda is None:
        return facts | {"missing": "the NVIDIA driver (libcuda) is not here"}
    supported = ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(supported)) == CUDA_OK:
        facts["cuda"] = _cuda_version(supported.value)
    status = cuda.cuInit(0)
    if status != CUDA_OK:
        return facts | {"init": status, "init_name": _error_name(cuda, status)}
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    return facts | {"gpus": [_driver_gpu(cuda, index) for index in range(count.value)]}


def torch() -> dict[str, Any]:
    """The GPUs that PyTorch can use, and the CUDA and cuDNN that it was built with."""
    torch: Any = importlib.import_module("torch")
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            seen = torch.cuda.get_device_properties(index)
            gpus.append({"name": seen.name, "cc": f"{seen.major}.{seen.minor}", "memory": seen.total_memory})
    # backends.cudnn.version() raises when the cuDNN found differs from the one torch was compiled with.
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {"cuda": torch.version.cuda, "cudnn": _cudnn_version(cudnn) if cudnn else None, "gpus": gpus}


def tensorflow() -> dict[str, Any]:
    """The GPUs that TensorFlow lists, and the CUDA and cuDNN that it was built with."""
    tf: Any = importlib.import_module("tensorflow")
    build = tf.sysconfig.get_build_info()
    gpus = []
    for device in tf.config.list_physical_devices("GPU"):
        seen = tf.config.experimental.get_device_details(device)
        cc = seen.get("compute_capability")
        name = seen.get("device_name", device.name)
        gpus.append({"name": name, "cc": f"{cc[0]}.{cc[1]}" if cc else None, "memory": None})
    return {"cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version"), "gpus": gpus}


def onnxruntime() -> dict[str, Any]:
    """The execution providers of ONNX Runtime, and whether its CUDA provider really loads."""
    ort: Any = importlib.import_module("onnxruntime")
    providers = list(ort.get_available_providers())
    facts: dict[str, Any] = {"providers": providers, "cuda_loads": False, "preload": False}
    if "CUDAExecutionProvider" in providers:
        # A listed provider only says how the library was built: without CUDA or cuDNN a session falls back to CPU.
        facts["cuda_loads"] = _ort_cuda_loads(ort)
        if not facts["cuda_loads"] and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
            facts["cuda_loads"] = facts["preload"] = _ort_cuda_loads(ort)
    return facts


def tensorrt() -> dict[str, Any]:
    """Whether TensorRT's libraries load and a builder can be made; without a GPU it cannot."""
    trt: Any = importlib.import_module("tensorrt")
    return {"builder": _can_make_builder(trt), "cuda": _cuda_of_wheel("tensorrt")}


def tensorrt_rtx() -> dict[str, Any]:
    """Whether TensorRT-RTX's libraries load, and the compute capabilities that it builds for."""
    trt: Any = importlib.import_module("tensorrt_rtx")
    names = [name[2:] for name in trt.ComputeCapability.__members__ if name[:2] == "SM" and name[2:].isdigit()]
    targets = sorted({(int(name[:-1]), int(name[-1])) for name in names})
    return {
        "builder": _can_make_builder(trt),
        "cuda": _cuda_of_wheel("tensorrt-rtx"),
        "targets": [f"{major}.{minor}" for major, minor in targets],
    }


def cudart() -> dict[str, Any]:
    """The CUDA runtimes that the loader and the installed wheels offer."""
    return {"found": list(_versions("cudart", (13, 12, 11), "cudaRuntimeGetVersion", _cuda_version))}


def cudnn() -> dict[str, Any]:
    """The cuDNN libraries that the loader and the installed wheels offer."""
    return {"found": list(_versions("cudnn", (9, 8), "cudnnGetVersion", _cudnn_version))}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "driver": driver,
    "cudart": cudart,
    "cudnn": cudnn,
    "torch": torch,
    "tensorflow": tensorflow,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "tensorrt_rtx": tensorrt_rtx,
}


def _load(library: str) -> Any:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _nvidia_on_pci() -> bool:
    """Whether Linux lists an NVIDIA display or 3D controller (PCI vendor 10de, class 03), driver or not."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        if vendor.strip() == "0x10de" and kind.startswith("0x03"):
            return True
    return False


def _error_name(cuda: Any, status: int) -> str | None:
    name = ctypes.c_char_p()
    found = cuda.cuGetErrorName(status, ctypes.byref(name)) == CUDA_OK
    return name.value.decode() if found and name.value else None


def _driver_gpu(cuda: Any, index: int) -> dict[str, Any]:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), ATTRIBUTE_CC_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), ATTRIBUTE_CC_MINOR, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return {"name": name.value.decode(), "cc": f"{major.value}.{minor.value}", "memory": memory.value}


def _ort_cuda_loads(ort: Any) -> bool:
    helper: Any = importlib.import_module("onnx.helper")
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    except Exception as error:  # ORT has no common base; a CUDA provider that raises does not load
        print(error, file=sys.stderr)
        return False
    return "CUDAExecutionProvider" in session.get_providers()


def _cuda_of_wheel(distribution: str) -> str | None:
    """The CUDA that NVIDIA's wheel is for, which stands in the name of its second distribution (`..-cu13`)."""
    for major in (13, 12):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(f"{distribution}-cu{major}")
            return f"{major}.0"
    return None


def _can_make_builder(trt: Any) -> bool:
    try:
        return trt.Builder(trt.Logger(trt.Logger.ERROR)) is not None
    except (TypeError, RuntimeError) as error:  # pybind11 turns a null builder into TypeError
        print(error, file=sys.stderr)
        return False


def _versions(
    library: str, majors: tuple[int, ...], function: str, read: Callable[[int], str]
) -> Iterator[dict[str, str]]:
    """Every version of a CUDA library that loads: first those on the loader's path, then those inside wheels."""
    on_path = [(f"lib{library}.so.{major}", "system") for major in majors]
    folders = [Path(entry) for entry in sys.path if entry]
    wheels = sorted({str(file) for folder in folders for file in folder.glob(f"nvidia/*/lib/lib{library}.so.*")})
    seen = set()
    for path, source in on_path + [(file, "wheel") for file in wheels]:
        loaded = _load(path)
        if loaded is None:
            continue
        version = read(_call_version(loaded, function))
        if (version, source) not in seen:
            seen.add((version, source))
            yield {"version": version, "from": source}


def _call_version(loaded: Any, function: str) -> int:
    if function == "cudnnGetVersion":
        loaded.cudnnGetVersion.restype = ctypes.c_size_t
        return int(loaded.cudnnGetVersion())
    value = ctypes.c_int()
    getattr(loaded, function)(ctypes.byref(value))
    return value.value


def _cuda_version(number: int) -> str:
    """12040 -> 12.4 (CUDART_VERSION: 1000 major + 10 minor)."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cudnn_version(number: int) -> str:
    """91002 -> 9.10.2; cuDNN 8 and older counted in thousands (8907 -> 8.9.7)."""
    scale = 10000 if number >= 90000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


if __name__ == "__main__":
    main(sys.argv[1])
