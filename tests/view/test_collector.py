"""Garbage collection is paused while a graph is read, and what came is not lost to it."""

import gc
import weakref

import pytest

from graphkit.view import collector
from graphkit.view.collector import collector_paused


class Ring:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collecting():
    gc.collect()
    enable = gc.enable
    yield
    enable()
    gc.unfreeze()


def test_it_is_paused_and_goes_on_and_stays_off_where_it_was_off():
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_what_came_is_not_looked_through_at_once_and_is_freed_by_the_next_full_collection():
    with collector_paused():
        rings = [Ring() for _ in range(5000)]
    assert gc.get_count()[0] < 5000
    gone = weakref.ref(rings[0])
    rings.clear()
    gc.collect()
    assert gone() is None


def test_beyond_a_bound_the_collector_sees_what_came(monkeypatch):
    monkeypatch.setattr(collector, "_MOST_UNSEEN", 1000)
    monkeypatch.setattr(gc, "enable", lambda: None)  # so that nothing is collected before it is looked for
    with collector_paused():
        ring = Ring()
        rings = [Ring() for _ in range(5000)]
    assert any(found is ring for found in gc.get_objects(generation=0))
    assert rings


def test_objects_that_somebody_froze_stay_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collector_paused():
        pass
    assert gc.get_freeze_count() >= frozen > 0
