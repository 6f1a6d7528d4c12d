"""The settings that pictures were made with, and what each took: of a unit, then of a dataset."""

from collections import Counter
from collections.abc import Iterable, Sequence

from jobs.recipe import Frozen, Recipe
from jobs.shard_row import ShardRow

#: Settings that are told of a unit, and of a dataset: those of the most pictures.
TOLD = 100
_NAMES = ("width", "height", "steps", "guidance", "sampler")
#: Stages of a picture on the device.
DEVICE = ("text_ms", "denoise_ms", "decode_ms")


class Setting(Frozen):
    """What a row may change of its job's recipe; sizes in pixels."""

    width: int
    height: int
    steps: int
    guidance: float
    sampler: str

    @property
    def calls_per_step(self) -> int:
        """UNet calls of a picture in each step."""
        return 2 if self.guidance > 1 else 1


class SettingTally(Setting):
    """The pictures that were made with the same settings, dropped ones too."""

    pictures: int
    unet_calls: int
    #: Text encoding, denoising and decoding: a picture's share of its batches.
    device_seconds: float

    @property
    def setting(self) -> Setting:
        """Which they are."""
        return Setting(**{name: getattr(self, name) for name in _NAMES})


def setting_tallies(rows: Sequence[ShardRow], recipe: Recipe) -> tuple[SettingTally, ...]:
    """The settings of a unit's pictures; nothing where all have those of their job's recipe."""
    made = [row for row in rows if row["status"] == "ok"]
    found = added_up(
        SettingTally(
            **{name: row[name] for name in _NAMES},
            pictures=1,
            unet_calls=row["unet_calls"],
            device_seconds=sum(row[name] for name in DEVICE) / 1000,
        )
        for row in made
    )
    own = Setting(**{name: getattr(recipe, name) for name in _NAMES})
    return () if {one.setting for one in found} <= {own} else found


def added_up(tallies: Iterable[SettingTally]) -> tuple[SettingTally, ...]:
    """One tally of each setting, the most pictures first, `TOLD` at most."""
    pictures, calls = Counter[Setting](), Counter[Setting]()
    seconds: dict[Setting, float] = {}
    for one in tallies:
        key = one.setting
        pictures[key] += one.pictures
        calls[key] += one.unet_calls
        seconds[key] = seconds.get(key, 0.0) + one.device_seconds
    ordered = sorted(pictures, key=lambda key: (-pictures[key], key.model_dump_json()))
    return tuple(
        SettingTally(
            **key.model_dump(),
            pictures=pictures[key],
            unet_calls=calls[key],
            device_seconds=round(seconds[key], 6),
        )
        for key in ordered[:TOLD]
    )
