"""git, as people run it, on a repository with a model in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphkit.delta.git import ATTRIBUTE
from graphkit.errors import FileMissing
from tests.delta.models import edited, layers, node

PROGRAMS = str(Path(sys.executable).parent)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Three commits: a model, an edit of it, and the same one renamed all over."""
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "-q")
    git(folder, "config", "user.name", "a")
    git(folder, "config", "user.email", "a@b.c")
    run(folder, "graphkit", "git", "install")
    for count, model in enumerate(versions()):
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"version {count}")
    return folder


def versions():
    first = layers()
    second = edited(first, lambda graph: setattr(node(graph, "h1"), "op_type", "Tanh"))
    third = edited(second, _rename)
    return first, second, third


def _rename(graph):
    new = {"h1": "hidden", "r1": "state", "w0": "kernel"}
    for each in graph.node:
        each.input[:] = [new.get(name, name) for name in each.input]
        each.output[:] = [new.get(name, name) for name in each.output]
    for each in graph.initializer:
        each.name = new.get(each.name, each.name)


def run(folder, *command):
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(folder), "GIT_PAGER": "cat"}
    environment.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def git(folder, *arguments):
    return run(folder, "git", *arguments)


def test_git_diff_tells_what_an_engineer_would(repository):
    said = git(repository, "diff", "HEAD~2", "HEAD~1")
    assert said.startswith("diff --graphkit a/m.onnx b/m.onnx\nm.onnx -> m.onnx\n")
    assert "  Relu: op Relu -> Tanh  at layers.1\n" in said
    assert "12 nodes matched, 1 changed" in said


def test_renaming_is_no_difference(repository):
    assert git(repository, "diff", "HEAD~1", "HEAD").endswith("m.onnx -> m.onnx\nthe same\n")


def test_git_show_and_git_log_print_the_line_that_changed(repository):
    for said in (git(repository, "show", "HEAD~1"), git(repository, "log", "-p", "-1", "HEAD~1")):
        lines = [line for line in said.splitlines() if line.startswith(("+", "-")) and line[:3] not in ("+++", "---")]
        assert lines == ["-Relu(^1)", "+Tanh(^1)"]
    assert "MatMul(x, float32[16,16]:" in git(repository, "show", "HEAD~2")


def test_a_new_and_a_broken_file_do_not_stop_git(repository):
    (repository / "new.onnx").write_bytes(b"garbage")
    git(repository, "add", "-N", "new.onnx")
    try:
        assert "not shown: new.onnx is not a valid ONNX file" in git(repository, "diff", "--", "new.onnx")
        assert "not shown: " in git(repository, "diff", "--no-ext-diff", "--", "new.onnx")
    finally:
        git(repository, "rm", "-q", "--cached", "new.onnx")
        (repository / "new.onnx").unlink()
    assert "new model, 12 nodes, 6 weights" in git(
        repository, "diff", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "HEAD"
    )


def test_installing_twice_is_installing_once(repository):
    before = (repository / ".gitattributes").read_text(), (repository / ".git" / "config").read_text()
    run(repository, "graphkit", "git", "install")
    assert before == ((repository / ".gitattributes").read_text(), (repository / ".git" / "config").read_text())
    assert before[0] == f"{ATTRIBUTE}\n"


def test_installing_for_all_repositories_writes_to_the_user_s_files(repository, tmp_path):
    said = run(tmp_path, "graphkit", "git", "install", "--global")
    assert (tmp_path / ".config" / "git" / "attributes").read_text() == f"{ATTRIBUTE}\n"
    assert "git config --global diff.graphkit.command 'graphkit git-diff'" in said
    assert "textconv = graphkit textconv" in (tmp_path / ".gitconfig").read_text()


def test_without_an_author_texts_are_not_kept(tmp_path):
    git(tmp_path, "init", "-q")
    assert "cachetextconv" not in run(tmp_path, "graphkit", "git", "install")
    (tmp_path / "m.onnx").write_bytes(versions()[0].SerializeToString())
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "one")
    assert "+MatMul(x, float32[16,16]:" in git(tmp_path, "show")


def test_outside_a_repository_it_is_refused(tmp_path):
    from graphkit.delta.git import install

    with pytest.raises(FileMissing, match="is in no git repository"):
        install(everywhere=False, folder=tmp_path)
