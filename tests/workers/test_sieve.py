"""Filters that are slow to load, or break: what that costs, and whose pictures it does not."""

import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jobs.errors import Unreachable
from jobs.filters import JobFilter
from jobs.settings import Settings
from tests.servers import wait_until
from tests.workers.test_batches import flight, job
from workers import filter_calls, sieve
from workers.batches import Flight, Place
from workers.device_faults import DeviceLost
from workers.rendered import Rendered
from workers.sieve import Sieve

PLUGIN = """
import threading
import numpy as np

opened = threading.Event()
raises = None

class Slow:
    def __init__(self):
        opened.wait()

    def __call__(self, pictures, prompts):
        return pictures[:, 0, 0, 0] / 255

def stuck(pictures, prompts):
    opened.wait()
    return pictures[:, 0, 0, 0] / 255

def picky(pictures, prompts):
    if raises is not None:
        raise raises
    if (pictures == 13).any():
        raise ValueError("thirteen")
    return pictures[:, 0, 0, 0] / 255

def endless(pictures, prompts):
    return np.where(pictures[:, 0, 0, 0] == 13, np.inf, 0.5)
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "of_a_test.py").write_text(PLUGIN)
    (tmp_path / "catalog.toml").write_text(
        "".join(
            f'[filters.{name.lower()}]\nkind = "plugin"\nplugin = "of_a_test:{name}"\n'
            for name in ("Slow", "stuck", "picky", "endless")
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "of_a_test", raising=False)
    return __import__("of_a_test")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(catalog=tmp_path / "catalog.toml", filter_timeout_s=0.05)


def asked(name: str, unit: str = "a") -> Flight:
    """A unit of two images, of a job that asks that filter."""
    one = job(unit, 2, 2)
    rule = JobFilter(name=name, kind="plugin", policy="keep", at_least=0.0)
    return flight(one.model_copy(update={"filters": (rule,)}), "0")


def sifted(sieve: Sieve, *flights: Flight, light: int = 100) -> list[Rendered | None]:
    """All images of some units in one batch; the very first picture is all 13."""
    places = [Place(one.groups[0], at) for one in flights for at in (0, 1)]
    pictures = [np.full((8, 8, 3), light, np.uint8) for _ in places]
    pictures[0][:] = 13
    return sieve.sift(places, [Rendered(one, "", 0, 0) for one in pictures])


def scores(found: list[Rendered | None], name: str) -> list[object]:
    return [one.filtered.get(f"score_{name}") if one else None for one in found]


def test_loading_may_take_longer_than_scoring(
    plugin: ModuleType, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes from a store do, and a renderer that gives up fails every image from then on."""
    monkeypatch.setattr(filter_calls, "_LOOK_S", 0.01)
    looks: list[int] = []

    def moved() -> None:
        looks.append(1)
        if len(looks) == 20:
            plugin.opened.set()

    found = sifted(Sieve(settings, moved), asked("slow"))
    assert scores(found, "slow") == [13 / 255, 100 / 255]
    assert len(looks) >= 20


@pytest.mark.parametrize("name", ["picky", "endless"])
def test_a_picture_that_a_filter_cannot_take_fails_alone(
    plugin: ModuleType, settings: Settings, name: str
) -> None:
    """Whoever sits beside it in its batch, of whichever job, is judged as without it."""
    found = sifted(Sieve(settings, lambda: None), asked(name), asked(name, "b"))
    assert [one.kind for one in found if one] == ["filter", "", "", ""]
    assert None not in scores(found[1:], name)


def test_a_device_that_breaks_in_a_filter_is_given_up(
    plugin: ModuleType, settings: Settings
) -> None:
    """The unit goes back: nothing was found out about its pictures."""
    plugin.raises = RuntimeError("CUDA error: device-side assert triggered (made up)")  # type: ignore[attr-defined]
    with pytest.raises(DeviceLost, match="in the filter 'picky'"):
        sifted(Sieve(settings, lambda: None), asked("picky"))


def test_weights_in_a_store_that_was_away_are_asked_for_again(
    plugin: ModuleType, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = sieve.load_score, threading.Event()

    def once(*given: object) -> object:
        if not away.is_set():
            away.set()
            raise Unreachable("the store does not answer (made up)")
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(sieve, "load_score", once)
    one = Sieve(settings, lambda: None)
    assert [found.kind for found in sifted(one, asked("picky"), light=50) if found] == [
        "filter",
        "filter",
    ]
    assert [found.kind for found in sifted(one, asked("endless"), asked("picky")) if found] == [
        "filter",
        *[""] * 3,
    ]


def test_a_filter_that_came_back_is_asked_again(plugin: ModuleType, settings: Settings) -> None:
    """A disk that stood still for a minute must not fail every later picture of a weekend."""
    sieve = Sieve(settings, lambda: None)
    for _ in range(2):
        assert [one.kind for one in sifted(sieve, asked("stuck")) if one] == ["filter"] * 2
    plugin.opened.set()
    wait_until(lambda: None not in scores(sifted(sieve, asked("stuck")), "stuck"), "an answer")


def test_a_filter_that_nobody_holds_any_more_leaves_no_thread(
    plugin: ModuleType, settings: Settings
) -> None:
    plugin.opened.set()
    before = {*threading.enumerate()}
    sieve = Sieve(settings, lambda: None)
    assert None not in scores(sifted(sieve, asked("slow")), "slow")
    (thread,) = {*threading.enumerate()} - before
    del sieve
    thread.join(10)
    assert not thread.is_alive()
