"""Runs tests on a queue whose script lacks one guard: FEWSTEP_MUTANT names it."""

import os

import pytest
from hypothesis import Phase, settings

import jobs.queue_script
import jobs.queue_source
from tests.mutants.guards import GUARDS, Guard


def mutated(script: str, guard: Guard) -> str:
    """The script without the guard, which it must have exactly once."""
    assert script.count(guard.before) == 1, (
        f"{guard.name}: found {script.count(guard.before)} times"
    )
    return script.replace(guard.before, guard.after)


def pytest_configure(config: pytest.Config) -> None:
    """Put the poorer script where the queue takes its own from."""
    if name := os.environ.get("FEWSTEP_MUTANT"):
        guard = next(one for one in GUARDS if one.name == name)
        text = mutated(jobs.queue_source.script_text(), guard)
        jobs.queue_script.script_text = lambda: text
        # That it fails is enough: making the example small would take minutes.
        settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")
