"""Accelerators as data: a few-step adapter, its sampler, and what it allows."""

from typing import Self

from pydantic import Field, computed_field, model_validator

from jobs.entries import AdapterEntry
from jobs.recipe import Sampler, Setting
from jobs.samplers import SAMPLERS


class AcceleratorEntry(AdapterEntry):
    """A few-step adapter: its sampler, and the steps and guidance it was made for.

    Guidance is that of classifier-free guidance: at 1 or below it is off, and a step costs one
    UNet call instead of two.
    """

    weight: float
    sampler: Sampler
    #: Over the base's scheduler configuration; `timesteps` and `eta` besides.
    sampler_settings: dict[str, Setting] = Field(default_factory=dict)
    steps_min: int = Field(ge=1)
    steps_max: int
    steps: int
    guidance_min: float = Field(default=0.0, ge=0.0)
    guidance_max: float
    guidance: float
    #: The weight of a style beside it, where a request names none.
    style_weight: float = 0.8

    @computed_field(description="Whether negative prompts have an effect at some guidance")  # type: ignore[prop-decorator]
    @property
    def negative_prompt(self) -> bool:
        """They work through guidance, so only where it may be on."""
        return self.guidance_max > 1.0

    @computed_field(description="Whether every step but the last draws noise")  # type: ignore[prop-decorator]
    @property
    def draws_noise(self) -> bool:
        """As its sampler does with its settings."""
        return SAMPLERS[self.sampler].draws_noise(self.sampler_settings)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.steps_min <= self.steps <= self.steps_max:
            raise ValueError("steps must lie between steps_min and steps_max")
        if not self.guidance_min <= self.guidance <= self.guidance_max:
            raise ValueError("guidance must lie between guidance_min and guidance_max")
        facts = SAMPLERS[self.sampler]
        if self.steps_max > facts.steps_max:
            raise ValueError(f"{self.sampler!r} allows {facts.steps_max} steps at most")
        return self

    @model_validator(mode="after")
    def _understood(self) -> Self:
        facts = SAMPLERS[self.sampler]
        strange = sorted(set(self.sampler_settings) - facts.settings)
        if strange:
            raise ValueError(
                f"the sampler {self.sampler!r} has no setting {strange[0]!r}; "
                f"it knows: {', '.join(sorted(facts.settings))}"
            )
        times = self.sampler_settings.get("timesteps")
        if isinstance(times, tuple) and {self.steps_min, self.steps_max} != {len(times)}:
            raise ValueError(f"{len(times)} timesteps fix steps_min and steps_max to that number")
        return self
