"""Parity reports kept beside the files that they speak of, and read again: are these still the same?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphkit import atomic
from graphkit.errors import BadOption, BadRequest, CorruptFile, FileMissing, GraphkitError, ParityFailed, UnsafePath
from graphkit.model import file_sha256

if TYPE_CHECKING:
    from graphkit.parity.verdict import ParityReport

FileState = Literal["same", "changed", "missing", "not here"]

_SOURCE = "source: "


@dataclass(frozen=True, slots=True)
class CertifiedFile:
    """One file that a certificate speaks of.

    Attributes:
        name: As the certificate has it.
        state: `same` or `changed` by its digest; `missing` from the certificate's folder; `not here` for the source of
            a conversion, which need not lie beside its result.
    """

    name: str
    state: FileState


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a certificate is still worth.

    Attributes:
        certificate: Its file name.
        verdict: What it says of the comparison: `pass` or `fail`.
        files: Every file that it speaks of.
    """

    certificate: str
    verdict: Literal["pass", "fail"]
    files: tuple[CertifiedFile, ...]

    @property
    def status(self) -> Literal["pass", "fail"]:
        """`pass` if it says so and every file is the one that it speaks of."""
        return "pass" if self.verdict == "pass" and all(f.state in ("same", "not here") for f in self.files) else "fail"

    def error(self) -> GraphkitError | None:
        """None, FileMissing (exit code 2), or ParityFailed (1)."""
        missing = [f.name for f in self.files if f.state == "missing"]
        changed = [f.name for f in self.files if f.state == "changed"]
        if missing:
            return FileMissing(
                f"{self.certificate} speaks of {', '.join(missing)}, which is not beside it",
                remedy="put the files and their certificate into one folder",
            )
        if changed:
            return ParityFailed(
                f"{self.certificate} no longer speaks of {', '.join(changed)}: the content has changed",
                remedy="convert or validate again",
            )
        if self.verdict == "fail":
            return ParityFailed(f"{self.certificate} says that parity failed")
        return None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, schema `graphkit.certificate/1`."""
        error = self.error()
        return {
            "schema": "graphkit.certificate/1",
            "status": self.status,
            "certificate": self.certificate,
            "verdict": self.verdict,
            "files": {f.name: f.state for f in self.files},
            "error": error.to_json() if error else None,
        }


def recheck(path: Path | str) -> Recheck:
    """Hash the files that a certificate (`OUT.parity.json`, or the JSON of `validate`) names, in its own folder.

    Raises:
        FileMissing: there is no such certificate.
        CorruptFile: it is no parity report, or it names no file.
        UnsafePath: it names a file outside its folder.
    """
    path = Path(path)
    data = _read(path)
    files = tuple(CertifiedFile(name, _state(path, name, digest)) for name, digest in data["files"].items())
    if all(f.state == "not here" for f in files) and data["status"] == "pass":
        raise CorruptFile(f"{path.name} names no file that is here: it speaks of nothing", remedy=_NOT_ONE)
    return Recheck(path.name, data["status"], files)


def check_place(path: Path, candidates: Sequence[Any]) -> None:
    """Refuse a certificate that would speak of nothing beside it.

    Raises:
        BadOption: no candidate is a file in its folder.
        CannotWrite: it cannot be written there.
    """
    atomic.check_writable(path)
    files = [Path(c) for c in candidates if isinstance(c, str | Path) and Path(c).exists()]
    if files and not any(_beside(path, file) for file in files):
        raise BadOption(
            f"no candidate lies in the folder of the certificate {path.name}",
            remedy=f"beside the model: {files[0]}.parity.json",
        )


def write(path: Path, report: ParityReport, files: Mapping[str, Path]) -> None:
    """Write a report that `recheck` takes: its files by their place in the certificate's folder.

    Args:
        files: Of every name in `report.files`, where it lies; what lies elsewhere is a source, which need not be there.
    """
    named = {_beside(path, file) or f"{_SOURCE}{_plain(name)}": report.files[name] for name, file in files.items()}
    text = json.dumps(replace(report, files=named).to_json(), indent=2, allow_nan=False) + "\n"
    atomic.write_bytes(path, text.encode())


def _plain(name: str) -> str:
    return Path(*(part for part in Path(name).parts if part not in ("/", ".."))).as_posix()


def _beside(certificate: Path, file: Path) -> str | None:
    """A file's name in the certificate's folder or one inside it; None for a file elsewhere."""
    place, folder = file.parent.resolve() / file.name, certificate.parent.resolve()
    return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else None


_NOT_ONE = "the .parity.json that convert writes, or validate --save-certificate"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileMissing(f"no such file: {path}", remedy=_NOT_ONE) from None
    except OSError as error:
        raise FileMissing(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path.name} is not JSON", remedy=_NOT_ONE) from error
    if isinstance(data, dict) and data.get("schema") == "graphkit.validate/1":
        data = data.get("parity")
    good = isinstance(data, dict) and data.get("schema") == "graphkit.parity/1"
    good = good and data.get("status") in ("pass", "fail") and isinstance(data.get("files"), dict)
    if not good or not all(isinstance(v, str) for v in data["files"].values()):
        raise CorruptFile(f"{path.name} is not a parity report (schema graphkit.parity/1)", remedy=_NOT_ONE)
    return dict(data)


def _state(certificate: Path, name: str, digest: str) -> FileState:
    plain = Path(name.removeprefix(_SOURCE))
    if plain.is_absolute() or ".." in plain.parts or "\0" in name:
        raise _outside(certificate, name)
    file = certificate.parent / plain
    if not file.is_file():
        return "not here" if name.startswith(_SOURCE) else "missing"
    return "same" if file_sha256(file) == digest else "changed"


def _outside(certificate: Path, name: str) -> BadRequest:
    return UnsafePath(
        f"{certificate.name} speaks of {name!r}, which is not in its folder",
        remedy="validate again in the folder of the files",
    )
