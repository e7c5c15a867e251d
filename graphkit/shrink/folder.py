"""The folder for a bug report: model, inputs, what fails and how to see it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from graphkit.errors import CannotWrite
from graphkit.shrink.result import Reduction
from graphkit.shrink.trial import Trial, write_inputs


@contextlib.contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """A new folder that is `output` when the block ends well, and is gone where it does not.

    Raises:
        CannotWrite: there is something at `output`, or its parent is missing or read-only.
    """
    check_free(output)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.gktmp.", dir=output.absolute().parent))
    except OSError as error:
        raise CannotWrite(f"cannot write {output}: {error.strerror}", remedy="name a folder with -o") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if output.is_dir():
            output.rmdir()  # an empty one
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(output: Path) -> None:
    """Raises: CannotWrite: as `appearing`."""
    if output.is_symlink() or (output.exists() and (not output.is_dir() or any(output.iterdir()))):
        raise CannotWrite(f"{output} exists", remedy="name a folder that is not there yet with -o")
    if not output.absolute().parent.is_dir():
        raise CannotWrite(f"cannot write {output}: its parent folder does not exist", remedy="name a folder with -o")


def write(folder: Path, trial: Trial, found: Reduction, copies: Sequence[Path]) -> Reduction:
    """Fill a folder; returns `found` with the names of the files.

    Args:
        copies: Files that the command needs.
    """
    trial.model.save(folder / "model.onnx")
    if trial.other is not None:
        trial.other.save(folder / "other.onnx")
    write_inputs(folder / "inputs", trial.samples)
    if found.until in ("ort", "parity"):
        shutil.copyfile(Path(__file__).with_name("reproduce.py"), folder / "reproduce.py")
    for path in copies:
        shutil.copy(path, folder / path.name)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    found = replace(found, files=(*files, "README.md", "failure.json"))
    facts = {k: v for k, v in found.to_json().items() if k != "folder"}
    (folder / "failure.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme(found), encoding="utf-8")
    return found


def readme(found: Reduction) -> str:
    """The page that opens the folder."""
    lines = [f"# {found.same}", "", f"{_sentence(found)} The check: `{found.check}`.", ""]
    lines += ["## The failure", "", "```text", found.failure, "```", ""]
    lines += ["## See it", "", "In this folder:", "", "```sh", found.command, "```", ""]
    lines += ["## The model", "", "| operator | node | from |", "|---|---|---|"]
    lines += [
        f"| {_cell(n.op)} | {_cell(n.name)} | {_cell('; '.join(map(str, n.source))) or '-'} |" for n in found.nodes
    ]
    lines += ["", *(f"- input `{_cell(str(s))}`" for s in found.inputs)]
    lines += [f"- output `{_cell(str(s))}`" for s in found.outputs]
    lines += ["", _inputs(found), "", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in found.versions.items()]
    if found.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in found.notes)]
    return "\n".join(lines) + "\n"


def _sentence(found: Reduction) -> str:
    minimal = (
        "without any one of these nodes it does not fail in this way"
        if found.status == "reduced"
        else "the search was stopped: fewer may do"
    )
    nodes = "1 node" if found.nodes_after == 1 else f"{found.nodes_after} nodes"
    return f"{nodes} of a model of {found.nodes_before}: {minimal} ({found.trials} trials)."


def _inputs(found: Reduction) -> str:
    if not found.samples:
        return "No inputs are given: the whole model could not be run to record them."
    sets = "1 set" if found.samples == 1 else f"{found.samples} sets"
    return (
        f"`inputs/` holds {sets} of inputs, a `.npy` file for each, named after it (percent-encoded). "
        "An input that was a tensor inside the whole model has the value that it had there."
    )


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text).replace("|", "\\|").replace("`", "'")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
