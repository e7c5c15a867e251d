"""Which libraries are installed, and do they fit each other? Asked of their metadata; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from graphkit.doctor.facts import Conflict, Fit, Library, Probe

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

OWN = "graphkit-onnx"
NAMES = (
    OWN, "torch", "tensorflow", "keras", "onnx", "onnx-ir", "onnxruntime", "onnxsim", "onnx-graphsurgeon",
    "polygraphy", "tf2onnx", "tensorrt", "tensorrt-rtx", "onnxscript", "safetensors", "transformers",
    "ray", "numpy", "protobuf", "click", "rich",
)  # fmt: skip

# Distributions that install the same module under another name.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorflow": ("tensorflow-cpu", "tf-nightly"),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
# Those whose variants overwrite each other's files when both are installed.
CLASHING = ("onnxruntime", "tensorflow")


def installed_libraries() -> tuple[Library, ...]:
    """Every library of `NAMES` with its version, or with None where it is not installed."""
    return tuple(_library(name) for name in NAMES)


def check_fit(libraries: Iterable[Library], probes: Iterable[Probe] = ()) -> Fit:
    """Compare the installed versions with the ranges that graphkit and the libraries themselves declare.

    Args:
        libraries: From `installed_libraries()`.
        probes: Results of the probes; a library's CUDA is compared with the one that the driver supports.
    """
    present = [library for library in libraries if library.version is not None]
    others = (*_twins(), *_cuda_conflicts({probe.name: probe for probe in probes}))
    try:
        import packaging.requirements  # noqa: F401
    except ImportError:
        return Fit("conflicts" if others else "not checked", 0, others, "versions not checked: no `packaging` here")
    reason = None if _version(OWN) else f"ranges of {OWN} not checked: it is not installed as a distribution"
    wanted = [
        (library.distribution or library.name, each)
        for library in present
        for each in _requirements(library.distribution or library.name)
    ]
    conflicts = (*_out_of_range(wanted), *others)
    return Fit("conflicts" if conflicts else "fits", len(wanted), conflicts, reason)


def cuda_clash(probe: Probe, driver: Probe) -> str | None:
    """Why a library's CUDA is too new for the driver, or None where it is not, or where either is unknown.

    Within one major CUDA version any driver of that version serves, and a newer driver serves all older ones:
    https://docs.nvidia.com/deploy/cuda-compatibility/.
    """
    built, supported = probe.facts.get("cuda"), driver.facts.get("cuda")
    if probe is driver or not built or not supported or _major(built) <= _major(supported):
        return None
    name = probe.name.replace("_", "-")
    return f"{name} is built for CUDA {built}; the NVIDIA driver supports CUDA {supported} at most"


def _library(name: str) -> Library:
    for distribution in (name, *VARIANTS.get(name, ())):
        version = _version(distribution)
        if version is not None:
            return Library(name, version, None if distribution == name else distribution)
    return Library(name, None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _major(version: object) -> int:
    return int(str(version).split(".")[0])


def _found(name: str) -> str | None:
    """The version of a distribution or of a variant of it."""
    candidates = (_version(each) for each in (name, *VARIANTS.get(name, ())))
    return next((version for version in candidates if version is not None), None)


def _requirements(distribution: str) -> Iterator[Requirement]:
    """What a distribution requires here. Of its extras, only graphkit's own, and only for libraries of `NAMES`
    that are installed: an extra that nobody asked for is no lack."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    own = distribution == OWN
    extras = metadata.metadata(distribution).get_all("Provides-Extra") or [] if own else []
    seen = set()
    for line in metadata.requires(distribution) or ():
        each = Requirement(line)
        name = canonicalize_name(each.name)
        needed = each.marker is None or each.marker.evaluate({"extra": ""})
        optional = any(each.marker.evaluate({"extra": extra}) for extra in extras) if each.marker else False
        if name == OWN or not (needed or (optional and name in NAMES and _found(name))) or str(each) in seen:
            continue
        seen.add(str(each))
        yield each


def _out_of_range(wanted: list[tuple[str, Requirement]]) -> Iterator[Conflict]:
    """One conflict per package: everything that is asked of it goes into the remedy, so that the command settles
    all of it at once."""
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name

    by_name: dict[str, list[tuple[str, SpecifierSet]]] = {}
    for who, each in wanted:
        by_name.setdefault(str(canonicalize_name(each.name)), []).append((who, each.specifier))
    for name, asked in sorted(by_name.items()):
        version = _found(name)
        broken = [(who, rule) for who, rule in asked if version is None or not rule.contains(version, prereleases=True)]
        if not broken:
            continue
        needs = "; ".join(f"{who} needs {_sorted(rule) or 'it'}" for who, rule in broken)
        both = SpecifierSet()
        for _, rule in asked:
            both &= rule
        remedy = _settle(name, both, asked)
        hopeless = "" if remedy else "; no version suits everybody: keep them in separate environments"
        yield Conflict(f"{name} {version or 'is not installed'}: {needs}{hopeless}", remedy)


def _settle(name: str, both: SpecifierSet, asked: list[tuple[str, SpecifierSet]]) -> str | None:
    """The command that installs a version which everybody accepts, or None where no version can be one."""
    bounds = [rule.version.removesuffix(".*") for _, rules in asked for rule in rules]
    candidates = [*bounds, *(f"{bound}.1" for bound in bounds if "+" not in bound), "0"]
    possible = any(both.contains(candidate, prereleases=True) for candidate in candidates)
    return f"pip install '{name}{_sorted(both)}'" if possible else None


def _sorted(rules: SpecifierSet) -> str:
    return ",".join(sorted((str(rule) for rule in rules), reverse=True))


def _twins() -> Iterator[Conflict]:
    """Distributions that overwrite each other's files."""
    for name in CLASHING:
        both = [each for each in (name, *VARIANTS[name]) if _version(each)]
        if len(both) > 1:
            remedy = f"pip uninstall -y {' '.join(both)} && pip install {both[-1]}"
            yield Conflict(f"{' and '.join(both)} install the same module {name}", remedy)


def _cuda_conflicts(probes: Mapping[str, Probe]) -> Iterator[Conflict]:
    clashes = (cuda_clash(probe, probes["driver"]) for probe in probes.values() if "driver" in probes)
    return (Conflict(clash, None) for clash in clashes if clash)
