"""Every malformed file is one clear refusal, and none of them runs its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.malformed import FILES, RUNS_CODE, WELL_FORMED, bitten, write_all
from graphkit import isolate
from graphkit.errors import FileMissing, GraphkitError, NotAModel, UnknownFormat
from graphkit.pipeline import ConvertRequest, run
from graphkit.shapes import TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

BAD = [name for name in FILES if name not in WELL_FORMED]

CODES = {
    "empty": "GK202", "text": "GK202", "html": "GK202", "random": "GK202", "lfs_pointer": "GK202", "directory": "GK202",
    "truncated": "GK203", "damaged": "GK203", "pickle_": "GK204", "torchscript_from_file": "GK204",
    "tar_legacy": "GK202",
    "pickled_": "GK204", "opaque": "GK204", "evaluated": "GK204", "external": "GK217",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("malformed")
    write_all(made / "files", made / "canary")
    return made


def expected(name: str) -> str:
    return next(code for start, code in CODES.items() if Path(name).name.startswith(start))


@pytest.fixture(scope="module")
def careless() -> Iterator[None]:
    """One PyTorch child, whose loader is told by a variable to load everything."""
    isolate.worker("PyTorch").close()  # the next one inherits the variable
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        yield
    isolate.worker("PyTorch").close()


def refused(folder: Path, tmp_path: Path, name: str) -> None:
    shapes = (TensorSpec("x", "float32", (4,)), TensorSpec("input", "float32", ("batch", 16)))
    request = ConvertRequest(output=tmp_path / "m.onnx", shapes=shapes[:1] if "torchscript" in name else shapes[1:])
    result = run(folder / "files" / name, request)
    assert isinstance(result.error, GraphkitError), name
    assert result.error.code == expected(name), result.error.render()
    assert result.error.exit_code == 2
    assert result.error.remedy
    assert Path(name).name in result.error.render() or "`scale`" in result.error.render()
    assert "Traceback" not in result.error.render()
    assert list(tmp_path.iterdir()) == []
    assert bitten(folder / "canary") == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_leaves_nothing(folder, tmp_path, name):
    refused(folder, tmp_path, name)


def test_every_bad_file_has_a_code_that_is_expected():
    assert all(expected(name) for name in BAD)
    assert set(RUNS_CODE) <= set(BAD)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    result = run(tmp_path / "none.pt", ConvertRequest(output=tmp_path / "m.onnx"))
    assert isinstance(result.error, FileMissing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"vtrt" + bytes(60), "engine"),
        (b"\x1f\x8b\x08" + bytes(60), "gzip"),
    ],
)
def test_other_formats_are_recognised_by_their_content(tmp_path, captured, head, says):
    (tmp_path / "model.pt").write_bytes(head)
    with pytest.raises(UnknownFormat, match=says) as caught:
        captured(tmp_path / "model.pt")
    assert caught.value.remedy


def test_the_extension_plays_no_part(folder, tmp_path, captured):
    (tmp_path / "model.pt").write_bytes((folder / "files" / "model.onnx").read_bytes())
    assert captured(tmp_path / "model.pt").origin.kind == "onnx file"


def test_an_object_of_no_framework_is_refused(captured):
    with pytest.raises(NotAModel, match="set"):
        captured(set())


@pytest.mark.parametrize("name", RUNS_CODE)
def test_a_bad_file_is_refused_where_torch_is_told_to_trust(folder, tmp_path, careless, name):
    refused(folder, tmp_path, name)
