"""What can be built here, what can be run here, and what it takes where the answer is no."""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.doctor.facts import Gpu, Library, Probe, Verdict
from graphkit.doctor.fit import cuda_clash

# Without these no model becomes ONNX, whatever its source.
CORE = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxsim")
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE of cuda.h
# Each distribution installs the driver by a command of its own, so the page is given instead.
NEWER_DRIVER = "install the driver from https://www.nvidia.com/drivers"
INIT_REMEDIES = {802: "sudo systemctl start nvidia-fabricmanager", 803: "sudo reboot"}  # cuInit's CUresult
INSTALL_ORT_CUDA = "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"


def extra(name: str) -> str:
    """The command that installs an extra of graphkit."""
    return f"pip install 'graphkit-onnx[{name}]'"


def build_verdicts(libraries: Mapping[str, Library], probes: Mapping[str, Probe]) -> tuple[Verdict, ...]:
    """What can be built here, by target.

    Args:
        libraries: By name.
        probes: By name; all of `probes.NAMES`.
    """
    return (
        _onnx(libraries),
        _onnx_from_torch(libraries, probes["torch"]),
        _build_rtx(libraries, probes["tensorrt_rtx"]),
        _build_tensorrt(libraries, probes["tensorrt"], probes["driver"]),
    )


def run_verdicts(libraries: Mapping[str, Library], probes: Mapping[str, Probe]) -> tuple[Verdict, ...]:
    """What can be run here. Arguments as of `build_verdicts`."""
    return (
        _ort(("ort", "cpu"), libraries, probes["onnxruntime"]),
        _run_ort_cuda(probes["onnxruntime"], probes["driver"]),
        _run_rtx(libraries, probes["tensorrt_rtx"], probes["driver"]),
        _run_tensorrt(libraries, probes["tensorrt"], probes["driver"]),
    )


def _onnx(libraries: Mapping[str, Library]) -> Verdict:
    missing = [name for name in CORE if libraries[name].version is None]
    if missing:
        return Verdict("onnx", "onnx", False, f"not installed: {', '.join(missing)}", "pip install graphkit-onnx")
    return Verdict("onnx", "onnx", True, f"onnx {libraries['onnx'].version}")


def _onnx_from_torch(libraries: Mapping[str, Library], probe: Probe) -> Verdict:
    what = ("onnx", "torch")
    if not probe.ok:
        return Verdict(*what, False, f"PyTorch: {probe.detail}", _reinstall(probe, libraries["torch"], extra("torch")))
    if libraries["onnxscript"].version is None:
        return Verdict(*what, False, "onnxscript, which torch.onnx translates with, is not installed", extra("torch"))
    return Verdict(*what, True, f"torch {libraries['torch'].version}, onnxscript {libraries['onnxscript'].version}")


def _ort(what: tuple[str, str], libraries: Mapping[str, Library], probe: Probe) -> Verdict:
    library = libraries["onnxruntime"]
    if not probe.ok:
        remedy = _reinstall(probe, library, "pip install graphkit-onnx")
        return Verdict(*what, False, f"onnxruntime: {probe.detail}", remedy)
    return Verdict(*what, True, f"onnxruntime {library.version}")


def _build_rtx(libraries: Mapping[str, Library], probe: Probe) -> Verdict:
    what = ("trt", "rtx")
    missing = _engine_lack(what, "TensorRT-RTX", libraries, probe, "trt")
    if missing:
        return missing
    targets: tuple[str, ...] = tuple(probe.facts.get("targets", ()))
    return Verdict(*what, True, "ahead of time, no GPU needed, for " + " ".join(targets), None, targets)


def _build_tensorrt(libraries: Mapping[str, Library], probe: Probe, driver: Probe) -> Verdict:
    what = ("trt", "tensorrt")
    no_gpu = _gpu_lack(driver)
    if no_gpu and not probe.ok:
        # Installing it would not help here, so the GPU comes first.
        return Verdict(*what, False, f"TensorRT: {probe.detail}, and it builds on a GPU only: {no_gpu[0]}", no_gpu[1])
    if no_gpu:
        return Verdict(*what, False, f"TensorRT builds on a GPU only: {no_gpu[0]}", no_gpu[1])
    missing = _engine_lack(what, "TensorRT", libraries, probe, "tensorrt")
    targets = tuple(dict.fromkeys(cc for gpu in driver.gpus if (cc := gpu.compute_capability)))
    return missing or Verdict(*what, True, "for the GPU of this machine: " + " ".join(targets), None, targets)


def _run_ort_cuda(probe: Probe, driver: Probe) -> Verdict:
    what = ("ort", "cuda")
    no_gpu = _gpu_lack(driver)
    if no_gpu:
        return Verdict(*what, False, *no_gpu)
    if not probe.ok:
        return Verdict(*what, False, f"onnxruntime: {probe.detail}", INSTALL_ORT_CUDA)
    if "CUDAExecutionProvider" not in probe.facts.get("providers", ()):
        return Verdict(*what, False, "this onnxruntime is built without CUDA", INSTALL_ORT_CUDA)
    if not probe.facts.get("cuda_loads"):
        reason = "onnxruntime's CUDA provider is installed but does not load (CUDA or cuDNN is missing)"
        return Verdict(*what, False, reason, "pip install 'onnxruntime-gpu[cuda,cudnn]'")
    preload = " after onnxruntime.preload_dlls()" if probe.facts.get("preload") else ""
    return Verdict(*what, True, f"the CUDA provider loads{preload}")


def _run_rtx(libraries: Mapping[str, Library], probe: Probe, driver: Probe) -> Verdict:
    what = ("trt", "rtx")
    no_gpu = _gpu_lack(driver)
    if no_gpu:
        return Verdict(*what, False, *no_gpu)
    missing = _engine_lack(what, "TensorRT-RTX", libraries, probe, "trt")
    if missing:
        return missing
    clash = cuda_clash(probe, driver)
    if clash:
        return Verdict(*what, False, clash, NEWER_DRIVER)
    known: tuple[str, ...] = tuple(probe.facts.get("targets", ()))
    fitting = tuple(dict.fromkeys(gpu.compute_capability for gpu in driver.gpus if gpu.compute_capability in known))
    if not fitting:
        reason = f"{_named(driver.gpus)}: TensorRT-RTX runs on {' '.join(known)} only"
        return Verdict(*what, False, reason, extra("tensorrt"))
    return Verdict(*what, True, _named(driver.gpus), None, tuple(cc for cc in fitting if cc))


def _run_tensorrt(libraries: Mapping[str, Library], probe: Probe, driver: Probe) -> Verdict:
    what = ("trt", "tensorrt")
    no_gpu = _gpu_lack(driver)
    if no_gpu:
        return Verdict(*what, False, *no_gpu)
    missing = _engine_lack(what, "TensorRT", libraries, probe, "tensorrt")
    if missing:
        return missing
    clash = cuda_clash(probe, driver)
    return Verdict(*what, False, clash, NEWER_DRIVER) if clash else Verdict(*what, True, _named(driver.gpus))


def _engine_lack(
    what: tuple[str, str], name: str, libraries: Mapping[str, Library], probe: Probe, extra_name: str
) -> Verdict | None:
    """Why an engine library cannot be used here, or None where it can."""
    library = libraries[name.lower()]
    if not probe.ok:
        return Verdict(*what, False, f"{name}: {probe.detail}", _reinstall(probe, library, extra(extra_name)))
    if not probe.facts.get("builder"):
        return Verdict(*what, False, f"{name} {library.version} loads but makes no builder", _force(library))
    return None


def _reinstall(probe: Probe, library: Library, install: str) -> str | None:
    """The command for a library that gave no answer; a hang has none, as installing again would not cure it."""
    if probe.status == "timed out":
        return None
    return install if probe.status == "not installed" or library.version is None else _force(library)


def _force(library: Library) -> str:
    # Without the local part: `2.13.0+cpu` is only on the index of the framework's own site.
    version = (library.version or "").split("+")[0]
    return f"pip install --force-reinstall '{library.distribution or library.name}=={version}'"


def _gpu_lack(driver: Probe) -> tuple[str, str | None] | None:
    """Why no GPU can be used here and the command for it (None where it takes hardware), or None where one can."""
    if driver.gpus:
        return None
    facts = driver.facts
    if driver.status in ("crashed", "timed out", "failed"):
        return f"the NVIDIA driver: {driver.detail}", "nvidia-smi"
    if driver.ok and facts.get("hidden"):
        return "CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES"
    if driver.ok and facts.get("init") not in (None, NO_DEVICE):
        return f"the NVIDIA driver: {driver.detail}", INIT_REMEDIES.get(facts["init"], "nvidia-smi")
    if facts.get("on_pci") and facts.get("container"):
        return "the host has an NVIDIA GPU that this container was not given", "docker run --gpus all"
    if facts.get("on_pci") and not driver.ok:
        return "an NVIDIA GPU is here but its driver is not", NEWER_DRIVER
    return "no NVIDIA GPU is here; no command adds one", None


def _named(gpus: tuple[Gpu, ...]) -> str:
    return ", ".join(dict.fromkeys(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus))
