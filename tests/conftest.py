"""What holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that has other work makes slow what is not: no law is judged by the clock.
settings.register_profile("graphkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("graphkit")

if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a core, and threads of frameworks that wait take another's
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of engines for this run alone: tests neither see what the user built, nor leave anything there."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("GRAPHKIT_CACHE_DIR")
    os.environ["GRAPHKIT_CACHE_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GRAPHKIT_CACHE_DIR"]
    else:
        os.environ["GRAPHKIT_CACHE_DIR"] = before
