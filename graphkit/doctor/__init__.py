"""What this machine can do: `diagnose()` asks every library in a process of its own and draws the conclusions."""

from __future__ import annotations

import os
import platform

from graphkit.doctor.facts import Conflict, Diagnosis, Fit, Gpu, Library, Machine, Probe, Verdict

__all__ = ["Conflict", "Diagnosis", "Fit", "Gpu", "Library", "Machine", "Probe", "Verdict", "diagnose"]


def diagnose(*, timeout: float = 30.0) -> Diagnosis:
    """Find out which libraries and GPUs are here, whether they fit, and what can be built and run with them.

    Nothing heavy is imported into this process. A library that crashes or hangs is reported as such; no error is
    raised for it.

    Args:
        timeout: Seconds that each library may take to answer.
    """
    from graphkit.doctor.fit import check_fit, installed_libraries
    from graphkit.doctor.probes import run_probes
    from graphkit.doctor.verdicts import build_verdicts, run_verdicts

    libraries = installed_libraries()
    probes = run_probes(timeout=timeout)
    library_of = {library.name: library for library in libraries}
    probe_of = {probe.name: probe for probe in probes}
    return Diagnosis(
        machine=_machine(),
        libraries=libraries,
        fit=check_fit(libraries, probes),
        probes=probes,
        build=build_verdicts(library_of, probe_of),
        run=run_verdicts(library_of, probe_of),
    )


def _machine() -> Machine:
    return Machine(
        platform.python_version(), platform.python_implementation(), platform.system(), platform.machine(),
        os.cpu_count() or 1,
    )  # fmt: skip
