"""The recipe: everything besides prompt and seed that decides pixels, and its identities."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sampler = Literal["lcm", "ddim", "dpmpp", "euler"]
Dtype = Literal["float32", "float16", "bfloat16"]


class Frozen(BaseModel):
    """A value: immutable, strict about its types, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StyleWeight(Frozen):
    """A user's LoRA and its weight (lambda_style in the LCM-LoRA paper; 0.8 there)."""

    name: Name
    weight: float = Field(default=0.8, ge=-4.0, le=4.0)


class RecipeRequest(Frozen):
    """What a user asks for; what is left out is filled in from the catalog."""

    model: Name = "tiny"
    #: None: the model's own accelerator. "none": the bare teacher.
    accelerator: Name | None = None
    styles: tuple[StyleWeight, ...] = Field(default=(), max_length=8, strict=False)
    sampler: Sampler | None = None
    steps: int | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    dtype: Dtype | None = None


class Weights(Frozen):
    """Where weights come from and what they must be: `sha256` is over the files' contents."""

    source: str
    revision: str = ""
    #: Empty where the operator pinned none; then the digest found is recorded, not checked.
    sha256: str = ""


class Adapter(Frozen):
    """A LoRA as the engine fuses it: its weights and its lambda."""

    name: Name
    weights: Weights
    weight: float


class Recipe(Frozen):
    """A complete recipe, checked against the catalog: sizes in pixels, guidance 1 is off."""

    model: Name
    family: str
    base: Weights
    #: The few-step adapter; None for the bare teacher.
    accelerator: Adapter | None
    styles: tuple[Adapter, ...] = Field(strict=False)
    sampler: Sampler
    #: Settings of the sampler that the accelerator brings (e.g. original_inference_steps).
    sampler_settings: dict[str, int | float | bool | str] = Field(default_factory=dict)
    steps: int
    guidance: float
    width: int
    height: int
    dtype: Dtype
    #: Images in one GPU batch: fixed, because kernels differ with the batch's shape.
    batch_images: int

    @property
    def base_key(self) -> str:
        """Identity of the base alone: engines that share it differ only by adapters."""
        return _digest({"base": self.base.model_dump(), "dtype": self.dtype})

    @property
    def engine_key(self) -> str:
        """Identity of what a renderer holds: base, adapters with their weights, dtype."""
        adapters = [self.accelerator.model_dump() if self.accelerator else None]
        adapters += [style.model_dump() for style in canonical(self.styles)]
        return _digest({"base": self.base_key, "adapters": adapters})

    @property
    def batch_key(self) -> str:
        """Images with the same one may share a GPU batch."""
        call = self.model_dump(
            include={"width", "height", "steps", "guidance", "sampler", "sampler_settings"}
        )
        return _digest({"engine": self.engine_key, "batch": self.batch_images, **call})

    @property
    def guided(self) -> bool:
        """True where each step costs two UNet calls (classifier-free guidance is on)."""
        return self.guidance > 1.0

    @property
    def unet_calls(self) -> int:
        """UNet evaluations per image."""
        return self.steps * (2 if self.guided else 1)


def canonical(styles: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
    """Styles in the order in which they are fused: rounding must not depend on the caller."""
    return tuple(sorted(styles, key=lambda style: (style.weights.sha256, style.name)))


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
