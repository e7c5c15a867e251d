"""benchmarks.measure on trivial commands."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measure import Command, CommandFailed, Comparison, Series, compare, peak, seconds
from benchmarks.results import Claim, page

psutil = pytest.importorskip("psutil")


def python(code: str, **options) -> Command:
    return Command("python", (sys.executable, "-S", "-c", code), **options)


def logging_to(file: Path, letter: str) -> Command:
    return python(f"open({str(file)!r}, 'a').write({letter!r})")


def test_wall_time_of_a_command_covers_its_sleep():
    assert 0.2 <= seconds(python("import time; time.sleep(0.2)")) < 5


def test_runs_alternate_after_the_warm_up(tmp_path):
    log = tmp_path / "log"
    found = compare(logging_to(log, "A"), logging_to(log, "B"), runs=3, warm_up=2)
    assert log.read_text() == "AB" * 5
    assert len(found.ours.seconds) == len(found.peer.seconds) == 3


def test_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians():
    # A machine that slows down tenfold for the last pair, and a hiccup of ours in the first.
    found = Comparison(Series((9.0, 2.0, 20.0)), Series((1.0, 1.0, 10.0)))
    assert found.ratios == (9.0, 2.0, 2.0)
    assert found.ratio == 2.0
    assert found.ours.median / found.peer.median == 9.0


def test_slower_command_has_a_ratio_above_one():
    found = compare(python("import time; time.sleep(0.4)"), python("pass"), runs=1, warm_up=0)
    assert found.ratio > 1
    assert found.ours.peak_bytes == 0, "memory is measured in the warm-up, and there was none"


def test_peak_counts_children_that_live_at_the_same_time():
    hold = "x = bytearray(b'1' * 60_000_000); import time; time.sleep(0.5)"
    alone = peak(python(hold))
    nested = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-S', '-c', {hold!r}]); {hold}; c.wait()"
    assert alone > 60_000_000
    assert peak(python(nested)) > alone + 50_000_000


def test_reading_takes_seconds_from_what_the_command_prints():
    command = python(
        "import sys; print(1.5); print(2, file=sys.stderr)", reading=lambda out, err: float(out) + float(err)
    )
    assert seconds(command) == 3.5


def test_environment_and_folder_reach_the_command(tmp_path):
    code = "import os, pathlib; pathlib.Path('seen').write_text(os.environ['MARK'])"
    seconds(python(code, env={"MARK": "here"}, cwd=tmp_path))
    assert (tmp_path / "seen").read_text() == "here"


@pytest.mark.parametrize("measure", [seconds, peak])
def test_failing_command_is_no_measurement(measure):
    with pytest.raises(CommandFailed, match=r"(?s)exit code 3.*out of luck"):
        measure(python("import sys; print('out of luck', file=sys.stderr); sys.exit(3)"))


@pytest.mark.parametrize(("runs", "warm_up"), [(0, 1), (-1, 0), (1, -1)])
def test_impossible_counts_are_refused(runs, warm_up):
    with pytest.raises(ValueError, match="runs must be at least 1"):
        compare(python("pass"), python("pass"), runs=runs, warm_up=warm_up)


@pytest.mark.parametrize(
    ("most", "limit", "met", "word"),
    [
        (2.0, None, True, "| yes |"),
        (1.9, None, False, "| **missed** |"),
        (2.0, 3.0, False, "| **missed** |"),
        (2.0, 4.0, True, "| yes |"),
        (None, None, None, "| no target |"),
    ],
)
def test_page_says_whether_a_target_is_met(most, limit, met, word):
    found = Comparison(Series((4.0,)), Series((2.0,)))
    claim = Claim("sleep", python("pass"), python("pass"), most, limit, found=found)
    assert claim.met is met
    assert word in page([claim], runs=5, warm_up=1, load=None)


def claim_of(room: str) -> Claim:
    found = Comparison(Series((4.0,)), Series((2.0,)))
    return Claim(f"{room}, asleep", python("pass"), python("pass"), None, found=found, room=room)


def test_a_room_that_is_measured_again_leaves_the_sections_of_the_others_as_they_are():
    both = page([claim_of("sleep"), claim_of("wake")], runs=5, warm_up=1, load=1.5)
    old = both.replace("measured on ", "measured long before ")
    again = page([claim_of("wake")], runs=7, warm_up=1, load=2.5, before=old)
    kept, renewed = again.split("## wake")
    assert kept == old.split("## wake")[0]
    assert "then 7 timed runs" in renewed
    assert "measured long before" not in renewed
    assert page([], runs=5, warm_up=1, load=None, before=again) == again


def test_page_of_few_runs_says_that_it_measures_nothing():
    assert "measures nothing" in page([claim_of("sleep")], runs=1, warm_up=0, load=None)
    assert "measures nothing" not in page([], runs=5, warm_up=1, load=None)


def test_what_was_not_measured_is_not_run():
    claim = Claim("sleep", python("pass"), python("pass"), 2.0)
    assert claim.met is None
    assert "not run" in page([claim], runs=5, warm_up=1, load=None)


def test_a_target_of_memory_is_judged_where_memory_was_measured():
    command = python("pass")
    claim = Claim("x", command, command, 1.0, most_memory=0.5)
    for ours, met in ((400, True), (600, False), (0, True)):
        found = Comparison(Series((1.0,), ours), Series((2.0,), 1000))
        assert replace(claim, found=found).met is met
    assert "at most 0.5x the memory" in page([claim], runs=5, warm_up=1, load=None)
