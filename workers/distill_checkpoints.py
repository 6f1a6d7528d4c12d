"""Checkpoints of a distillation: everything a killed run needs to go on as if nothing had been."""

import io
from typing import Any

import torch

from jobs.places import Place

_FOLDER = "checkpoints/"
#: A checkpoint is whole or not there; two are kept all the same, for disks that lie.
KEPT = 2


def save_checkpoint(place: Place, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then remove what is older than the last two."""
    data = io.BytesIO()
    torch.save(state, data)
    place.write(f"{_FOLDER}{step:07d}.pt", data.getvalue())
    for name in _names(place)[:-KEPT]:
        place.remove(name)


def load_checkpoint(place: Place, device: torch.device) -> dict[str, Any] | None:
    """The latest state; None where nothing was saved."""
    names = _names(place)
    data = place.read(names[-1]) if names else None
    if data is None:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    return state


def _names(place: Place) -> list[str]:
    return [name for name in place.names() if name.startswith(_FOLDER) and name.endswith(".pt")]
