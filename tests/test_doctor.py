"""`diagnose()`: what it says about this machine, and about machines where something is broken or missing."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from graphkit.doctor import Diagnosis, Gpu, Library, Probe, diagnose, probes
from graphkit.doctor.child import PROBES
from graphkit.doctor.fit import check_fit, installed_libraries
from graphkit.doctor.probes import run_probes
from graphkit.doctor.verdicts import build_verdicts, run_verdicts
from graphkit.report.doctor import print_text, to_json

BAITED_CHILD = """
import json, os, pathlib, signal, sys, time
name = sys.argv[1]
if name == "torch":
    print(f"fatal: {pathlib.Path.home()}/secret/libtorch.so is broken", file=sys.stderr, flush=True)
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:
        pass
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "onnxruntime":
    time.sleep(60)
if name == "driver":
    print("not JSON")
elif name == "cudart":
    sys.exit(7)
elif name == "cudnn":
    print(json.dumps({"error": "OSError: /opt/some where/lib/libcudnn.so: bad"}))
else:
    print(json.dumps({"builder": False, "cuda": None, "targets": []}))
"""
RTX_TARGETS = ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]


@pytest.fixture(scope="module")
def here() -> Diagnosis:
    return diagnose()


@pytest.fixture
def baited(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(BAITED_CHILD)
    monkeypatch.setattr(probes, "CHILD", child)
    monkeypatch.setattr(probes, "_installed", lambda module: module not in ("tensorflow", "tensorrt"))


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def text_of(diagnosis, width=100):
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        print_text(diagnosis, console)
    return captured.get()


# --- this machine -------------------------------------------------------------------------------------------------


def test_versions_are_those_of_the_installed_distributions(here):
    versions = {library.name: library.version for library in here.libraries}
    for name in ("numpy", "onnx", "onnx-ir", "click"):
        assert versions[name] == metadata.version(name)


def test_every_probe_answers_here_or_says_why_not(here):
    assert {probe.name for probe in here.probes} == set(probes.NAMES) == set(PROBES)
    assert all(probe.detail for probe in here.probes)
    assert next(probe for probe in here.probes if probe.name == "onnxruntime").facts["providers"]


def test_diagnose_imports_no_framework_into_this_process():
    code = (
        "import sys; from graphkit.doctor import diagnose; diagnose(); "
        "bad = {'torch', 'tensorflow', 'onnx', 'onnxruntime', 'tensorrt_rtx', 'tensorrt', 'numpy'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_json_is_strict_sorted_and_the_same_twice(here):
    text = to_json(here)
    data = strict(text)
    assert data["schema"] == "graphkit.doctor/1"
    assert data["status"] == "ok"
    assert json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) == text
    assert to_json(diagnose()) == text


def test_json_holds_no_path(here):
    def strings(value):
        if isinstance(value, dict):
            value = [*value, *value.values()]
        if isinstance(value, list):
            return [found for each in value for found in strings(each)]
        return [value] if isinstance(value, str) else []

    text = to_json(here)
    assert str(Path.home()) not in text
    assert sys.prefix not in text
    assert [found for found in strings(strict(text)) if found.startswith("/")] == []


def test_text_fits_one_screen(here):
    assert len(text_of(here, width=100).splitlines()) <= 40


# --- probes that go wrong -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_crashing_library_is_a_result_and_tells_no_path(baited):
    (probe,) = run_probes(("torch",))
    assert probe.status == "crashed"
    assert probe.detail == "crashed with signal 11 (SIGSEGV): fatal: libtorch.so is broken"


def test_a_hanging_library_times_out(baited):
    (probe,) = run_probes(("onnxruntime",), timeout=0.5)
    assert (probe.status, probe.detail) == ("timed out", "timed out after 0.5 s")


def test_a_missing_library_is_not_installed(baited):
    (probe,) = run_probes(("tensorflow",))
    assert (probe.status, probe.detail) == ("not installed", "not installed")


def test_garbage_an_exit_code_and_an_exception_are_results(baited):
    driver, cudart, cudnn = run_probes(("driver", "cudart", "cudnn"))
    assert (driver.status, driver.detail) == ("failed", "ended without an answer")
    assert (cudart.status, cudart.detail) == ("crashed", "crashed with exit code 7")
    assert cudnn.status == "failed"
    assert "/opt" not in cudnn.detail
    assert cudnn.detail.startswith("OSError: ")


def test_a_real_child_reports_a_library_that_is_not_there():
    child = Path(probes.__file__).with_name("child.py")
    code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = ['child', 'torch']; runpy.run_path({str(child)!r}, run_name='__main__')"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["error"].startswith("ModuleNotFoundError: ")


def test_broken_libraries_never_stop_the_diagnosis(baited):
    diagnosis = diagnose(timeout=3)
    text = text_of(diagnosis)
    can = {(verdict.target, verdict.by): verdict.can for verdict in (*diagnosis.build, *diagnosis.run)}
    assert "timed out after 3 s" in text
    assert can["onnx", "torch"] is False
    assert can["ort", "cpu"] is False
    assert can["trt", "rtx"] is False
    assert diagnosis.remedies
    assert text.rstrip().endswith(diagnosis.remedies[-1])
    strict(to_json(diagnosis))


# --- whether the libraries fit ------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution's metadata on the path."""

    def install(name, version, *requires):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        lines += [f"Requires-Dist: {each}" for each in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_a_missing_requirement_is_a_conflict_with_its_command(install):
    install("ray", "2.55", "no-such-thing<3,>=1")
    fit = check_fit(installed_libraries())
    conflict = next(each for each in fit.conflicts if "no-such-thing" in each.what)
    assert fit.status == "conflicts"
    assert conflict.what == "no-such-thing is not installed: ray needs >=1,<3"
    assert conflict.remedy == "pip install 'no-such-thing>=1,<3'"


def test_a_protobuf_that_cannot_suit_two_libraries_has_no_command(install):
    install("ray", "2.55", "protobuf<5")
    conflict = next(each for each in check_fit(installed_libraries()).conflicts if each.what.startswith("protobuf "))
    assert "ray needs <5" in conflict.what
    assert "separate environments" in conflict.what
    assert conflict.remedy is None


def test_an_unmet_marker_or_extra_is_no_conflict(install):
    before = check_fit(installed_libraries())
    install("ray", "2.55", 'no-such-thing; python_version < "3"', 'no-such-thing; extra == "more"')
    after = check_fit(installed_libraries())
    own = 1  # the range of ray in our own extra
    assert (after.status, after.checked) == (before.status, before.checked + own)


def test_an_installed_library_outside_the_range_of_an_extra_of_ours_is_a_conflict(install):
    install("graphkit-onnx", "9.0", 'onnx>=999; extra == "trt"', 'ray>=1; extra == "ray"')
    metadata_file = next(Path(sys.path[0]).glob("graphkit_onnx-*/METADATA"))
    metadata_file.write_text(metadata_file.read_text() + "Provides-Extra: trt\nProvides-Extra: ray\n")
    whats = [conflict.what for conflict in check_fit(installed_libraries()).conflicts]
    assert any(what.startswith("onnx ") and "graphkit-onnx needs >=999" in what for what in whats)
    assert not any(what.startswith("ray ") for what in whats)


def test_two_distributions_of_one_module_are_a_conflict(install):
    install("onnxruntime-gpu", "1.32.0")
    whats = [conflict.what for conflict in check_fit(installed_libraries()).conflicts]
    assert "onnxruntime and onnxruntime-gpu install the same module onnxruntime" in whats


def test_without_packaging_versions_are_not_checked(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    fit = check_fit(installed_libraries())
    assert (fit.status, fit.checked) == ("not checked", 0)
    assert "packaging" in fit.reason


def test_a_library_for_a_newer_cuda_than_the_drivers_is_a_conflict():
    found = check_fit(installed_libraries(), [driver(cuda="12.4"), Probe("torch", "ok", "", facts={"cuda": "13.0"})])
    same = check_fit(installed_libraries(), [driver(cuda="12.4"), Probe("torch", "ok", "", facts={"cuda": "12.8"})])
    wanted = "torch is built for CUDA 13.0; the NVIDIA driver supports CUDA 12.4 at most"
    assert wanted in [conflict.what for conflict in found.conflicts]
    assert not any("is built for CUDA" in conflict.what for conflict in same.conflicts)


# --- verdicts -----------------------------------------------------------------------------------------------------


def driver(*gpus, cuda="13.0", status="ok", **facts):
    return Probe("driver", status, "driver", tuple(gpus), {"cuda": cuda, **facts})


def verdict(judge, target, by, **changed):
    """One verdict on a machine where every library is installed and works, but for what is `changed`."""
    names = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxsim", "onnxscript", "torch", "tensorrt", "tensorrt-rtx")
    found = {
        "driver": driver(),
        "torch": Probe("torch", "ok", ""),
        "onnxruntime": Probe("onnxruntime", "ok", "", facts={"providers": ["CPUExecutionProvider"]}),
        "tensorrt": Probe("tensorrt", "ok", "", facts={"builder": True, "cuda": "13.0"}),
        "tensorrt_rtx": Probe(
            "tensorrt_rtx", "ok", "", facts={"builder": True, "cuda": "13.0", "targets": RTX_TARGETS}
        ),
    }
    verdicts = judge({name: Library(name, "1.0") for name in names}, found | changed)
    return next(each for each in verdicts if (each.target, each.by) == (target, by))


ADA, HOPPER = Gpu("RTX 4090", "8.9", 24 * 1024**3), Gpu("H100", "9.0", 80 * 1024**3)


def test_rtx_engines_are_built_without_a_gpu_for_the_targets_the_library_names():
    found = verdict(build_verdicts, "trt", "rtx")
    assert found.can
    assert found.compute_capabilities == tuple(RTX_TARGETS)


def test_rtx_engines_run_on_a_gpu_that_the_library_names():
    assert verdict(run_verdicts, "trt", "rtx", driver=driver(ADA)).can
    refused = verdict(run_verdicts, "trt", "rtx", driver=driver(HOPPER))
    assert not refused.can
    assert "H100 (9.0)" in refused.reason
    assert refused.remedy == "pip install 'graphkit-onnx[tensorrt]'"


def test_rtx_engines_need_a_driver_as_new_as_their_cuda():
    found = verdict(run_verdicts, "trt", "rtx", driver=driver(ADA, cuda="12.4"))
    assert not found.can
    assert "supports CUDA 12.4 at most" in found.reason


def test_tensorrt_builds_for_the_gpu_of_the_machine_only():
    assert verdict(build_verdicts, "trt", "tensorrt", driver=driver(HOPPER)).compute_capabilities == ("9.0",)
    without = verdict(build_verdicts, "trt", "tensorrt")
    assert (without.can, without.remedy) == (False, None)


@pytest.mark.parametrize(
    ("target", "by", "probe", "remedy"),
    [
        ("trt", "rtx", "tensorrt_rtx", "pip install 'graphkit-onnx[trt]'"),
        ("trt", "tensorrt", "tensorrt", "pip install 'graphkit-onnx[tensorrt]'"),
        ("onnx", "torch", "torch", "pip install 'graphkit-onnx[torch]'"),
    ],
)
def test_what_is_not_installed_has_the_command_that_installs_it(target, by, probe, remedy):
    absent = {probe: Probe(probe, "not installed", "not installed")}
    found = verdict(build_verdicts, target, by, driver=driver(HOPPER), **absent)
    assert (found.can, found.remedy) == (False, remedy)
    assert "not installed" in found.reason


def test_a_crashing_library_is_to_be_installed_again_at_its_version():
    crashed = Probe("tensorrt_rtx", "crashed", "crashed with signal 11 (SIGSEGV)")
    found = verdict(build_verdicts, "trt", "rtx", tensorrt_rtx=crashed)
    assert not found.can
    assert "crashed with signal 11" in found.reason
    assert found.remedy == "pip install --force-reinstall 'tensorrt-rtx==1.0'"


def test_a_listed_cuda_provider_that_does_not_load_is_a_no():
    facts = {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda_loads": False, "preload": False}
    listed = Probe("onnxruntime", "ok", "", facts=facts)
    loaded = Probe("onnxruntime", "ok", "", facts=facts | {"cuda_loads": True})
    assert not verdict(run_verdicts, "ort", "cuda", driver=driver(ADA), onnxruntime=listed).can
    assert verdict(run_verdicts, "ort", "cuda", driver=driver(ADA), onnxruntime=loaded).can


@pytest.mark.parametrize(
    ("facts", "status", "remedy"),
    [
        ({"hidden": True}, "ok", "unset CUDA_VISIBLE_DEVICES"),
        ({"init": 803}, "ok", "sudo reboot"),
        ({"on_pci": True, "container": True}, "not installed", "docker run --gpus all"),
        ({"on_pci": True}, "not installed", "install the driver from https://www.nvidia.com/drivers"),
        ({"init": 100}, "ok", None),
        ({}, "not installed", None),
    ],
)
def test_a_gpu_that_is_not_visible_has_its_own_reason(facts, status, remedy):
    found = verdict(run_verdicts, "trt", "rtx", driver=driver(status=status, **facts))
    assert (found.can, found.remedy) == (False, remedy)
