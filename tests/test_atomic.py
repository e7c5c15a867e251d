"""Files appear whole or not at all, also when the writer is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphkit import atomic
from graphkit.errors import CannotWrite

CHILD = """
import sys, time
from pathlib import Path
from graphkit import atomic
with atomic.replacing(Path(sys.argv[1])) as temporary:
    with temporary.open("wb") as file:
        file.write(b"half of the new content")
        file.flush()
        print("written", flush=True)
        time.sleep(60)
"""


def fail_after(_written: int) -> None:
    raise RuntimeError


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


@pytest.mark.parametrize("old", [None, b"the old content"])
def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path, old):
    path = tmp_path / "model.onnx"
    if old is not None:
        path.write_bytes(old)
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=30) == -signal.SIGKILL
    assert visible(tmp_path) == ([] if old is None else ["model.onnx"])
    if old is not None:
        assert path.read_bytes() == old


def test_a_block_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        fail_after(temporary.write_bytes(b"new"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_content_is_there_only_after_the_block(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    atomic.write_bytes(tmp_path / "atomic", b"x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_temporary_file_that_is_removed_changes_nothing(tmp_path):
    path = tmp_path / "model.onnx"
    with atomic.replacing(path) as temporary:
        temporary.unlink()
    assert list(tmp_path.iterdir()) == []


def test_asking_whether_a_path_is_writable_leaves_no_trace(tmp_path):
    atomic.check_writable(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model.onnx").write_bytes(b"old")
    atomic.check_writable(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"old"


def test_a_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(CannotWrite, match="is a folder") as caught:
        atomic.check_writable(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CannotWrite, match="No such file or directory"):
        atomic.write_bytes(tmp_path / "no" / "m.onnx", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CannotWrite, match="Permission denied"):
            atomic.check_writable(tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_a_clear_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(CannotWrite, match="No space left"), atomic.replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
