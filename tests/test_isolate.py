"""A worker: one child, reused, whose death is one clear error, and which comes back."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from graphkit import events, isolate
from graphkit.errors import BadOption, InternalError, NativeCrash, OutOfMemory, TimedOut


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    made = isolate.Worker("Test", env={"GRAPHKIT_TEST": "only in the child"})
    yield made
    made.close()


HERE = "tests.isolated_work"


def test_a_call_gives_back_what_the_function_returns(worker):
    assert worker.call(f"{HERE}:echo", value={"a": [1, None, "ü\n"]}) == {"a": [1, None, "ü\n"]}


def test_the_child_is_reused(worker):
    assert worker.call("os:getpid") == worker.call("os:getpid") != os.getpid()


def test_the_environment_is_the_childs_alone(worker):
    assert worker.call("os:getenv", key="GRAPHKIT_TEST") == "only in the child"
    assert "GRAPHKIT_TEST" not in os.environ


def test_our_own_errors_cross_with_everything(worker):
    with pytest.raises(BadOption) as caught:
        worker.call(f"{HERE}:refuse")
    assert caught.value.to_json() == {
        "code": "GK212",
        "message": "no",
        "where": "there",
        "remedy": "this",
        "details": ["a"],
        "data": {"n": 1},
    }


def test_any_other_exception_is_a_bug_with_its_traceback(worker):
    with pytest.raises(InternalError, match="ZeroDivisionError: division by zero") as caught:
        worker.call(f"{HERE}:divide")
    assert "in divide" in caught.value.data["traceback"]


@pytest.mark.parametrize(("function", "name"), [("os:abort", "SIGABRT"), (f"{HERE}:segfault", "SIGSEGV")])
def test_a_crash_is_one_clear_error_and_the_next_call_works(worker, function, name):
    before = worker.call("os:getpid")
    with pytest.raises(NativeCrash, match=name) as caught:
        worker.call(function)
    assert caught.value.exit_code == 4
    assert "Test" in caught.value.message
    assert worker.call("os:getpid") != before


def test_the_childs_last_lines_are_quoted(worker):
    with pytest.raises(NativeCrash, match="exit status 3") as caught:
        worker.call(f"{HERE}:die_with_words")
    assert caught.value.details[-2:] == ("on stdout", "on stderr")


def test_a_killed_child_is_reported_as_out_of_memory(worker):
    with pytest.raises(OutOfMemory, match="killed by the system"):
        worker.call(f"{HERE}:kill_myself")
    assert worker.call(f"{HERE}:echo", value=1) == 1


def test_a_failed_allocation_is_out_of_memory(worker):
    with pytest.raises(OutOfMemory):
        worker.call(f"{HERE}:no_memory")


def test_silence_beyond_the_limit_ends_the_child(worker):
    worker.call(f"{HERE}:echo", value=1)
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"0\.2 s"):
        worker.call(f"{HERE}:sleep", timeout=0.2, seconds=60)
    assert time.monotonic() - started < 20
    assert worker.call(f"{HERE}:echo", value=2) == 2


def test_what_a_function_prints_does_not_disturb_the_answer(worker):
    assert worker.call(f"{HERE}:chatter") == "answer"


def test_events_of_the_child_are_heard_here(worker):
    heard = []
    with events.listening(heard.append):
        worker.call(f"{HERE}:progress")
    assert heard == [{"event": "progress", "phase": "build", "done": i, "total": 2} for i in (1, 2)]


def test_two_threads_get_their_own_answers(worker):
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        found[number] = worker.call(f"{HERE}:echo", value=number)

    worker.start()
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(8)}


def test_a_module_beside_the_user_is_not_imported_in_place_of_a_library(worker, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert worker.call("json:loads", s="[1]") == [1]


def test_a_missing_preload_is_left_to_the_call_that_needs_it():
    worker = isolate.Worker("Test", preload=("no_such_library",))
    try:
        assert worker.call("os:getpid")
    finally:
        worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="uses /proc")
def test_closing_ends_the_child(worker):
    pid = worker.call("os:getpid")
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    worker.close()
