"""What a renderer's process sees of its machine before it loads anything."""

import os

import pytest

from jobs.catalog import Catalog
from jobs.recipe import RecipeRequest
from jobs.settings import Settings
from workers import loading


class Seen(Exception):
    """The device was asked for."""


@pytest.mark.parametrize(
    ("in_actor", "share", "seen"),
    [
        # A CPU renderer on a node with GPUs, which are others'.
        (True, 0.0, ""),
        (True, 0.5, "3"),
        # A person's own process: fewstep repro.
        (False, 0.0, "3"),
    ],
)
def test_who_was_given_no_device_sees_none(
    in_actor: bool, share: float, seen: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pick(_: int) -> None:
        raise Seen(os.environ["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(loading, "_in_actor", lambda: in_actor)
    monkeypatch.setattr(loading, "assigned_share", lambda: share)
    monkeypatch.setattr("workers.engine.pick_device", pick)
    recipe = catalog.resolve(RecipeRequest()).model_dump_json()
    with pytest.raises(Seen, match=f"^{seen}$"):
        loading.load_parts(recipe, Settings(), loading.Watcher)  # type: ignore[arg-type]
