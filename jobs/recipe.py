"""The recipe: everything besides prompt and seed that decides pixels, and its identities."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sampler = Literal["lcm", "tcd", "ddim", "dpm", "dpmpp", "euler"]
Dtype = Literal["float32", "float16", "bfloat16"]
#: Of a sampler: a number, a switch, a word, or the timesteps themselves.
Setting = bool | int | float | str | Annotated[tuple[int, ...], Field(strict=False)]
Layout = Literal["any", "kohya", "peft"]
#: `file`: what the file says, and alpha = rank where it says nothing. `rank`: alpha = rank whatever
#: it says. A number: the alpha of a file that says none; one that says another is refused.
Alpha = Literal["file", "rank"] | Annotated[float, Field(gt=0)]
Commercial = Literal["allowed", "forbidden", "unknown"]


class Frozen(BaseModel):
    """A value: immutable, strict about its types, closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StyleWeight(Frozen):
    """A user's LoRA and its weight (lambda_style in the LCM-LoRA paper; 0.8 there)."""

    name: Name
    #: None: the style's own default.
    weight: float | None = Field(default=None, ge=-4.0, le=4.0)


class RecipeRequest(Frozen):
    """What a user asks for; what is left out is filled in from the catalog."""

    model: Name = "tiny"
    #: None: the model's own accelerator. "none": the bare teacher.
    accelerator: Name | None = None
    styles: tuple[StyleWeight, ...] = Field(default=(), max_length=8, strict=False)
    sampler: Sampler | None = None
    steps: int | None = None
    guidance: float | None = None
    #: How much of each step of TCD is fresh noise, 0 to 1.
    eta: float | None = Field(default=None, ge=0.0, le=1.0)
    #: Another autoencoder, by its name in the catalog. None: the model's own choice.
    vae: Name | None = None
    width: int | None = None
    height: int | None = None
    dtype: Dtype | None = None


class RowRecipe(Frozen):
    """What of its job's recipe is another for one row: nothing that needs another engine."""

    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: Sampler | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Field -> value, of those that are another."""
        return {name: value for name, value in dict(self).items() if value is not None}


class Weights(Frozen):
    """Where weights come from and what they must be: `sha256` is over the files' contents."""

    source: str
    revision: str = ""
    #: Empty where the operator pinned none; then the digest found is recorded, not checked.
    sha256: str = ""
    #: One file of the source, where it holds several or is a whole model in one.
    file: str = ""
    #: Which files of a folder: `fp16` stands for `*.fp16.safetensors`.
    variant: str = ""


class Adapter(Frozen):
    """A LoRA as the engine fuses it: its weights and its lambda."""

    name: Name
    weights: Weights
    weight: float
    alpha: Alpha = "file"
    layout: Layout = "any"
    #: Modules that it must change in the base; 0 where nobody counted them.
    modules: int = 0


class Licence(Frozen):
    """Under which terms a part of a recipe may be used."""

    part: str
    name: str
    licence: str
    commercial: Commercial


class Recipe(Frozen):
    """A complete recipe, checked against the catalog: sizes in pixels, guidance 1 is off."""

    model: Name
    #: Which pipeline loads it: `sd` or `sdxl`.
    family: str
    #: Name and fingerprint of the UNet's configuration (`jobs/architectures.py`).
    architecture: str = ""
    fingerprint: str = ""
    base: Weights
    #: Configuration and tokenizers of a base that is one file without them.
    config: Weights | None = None
    #: Another autoencoder than the base's own.
    vae: Weights | None = None
    #: Decode in float32 where the autoencoder's configuration asks for it (`force_upcast`).
    vae_float32: bool = False
    #: The few-step adapter; None for the bare teacher.
    accelerator: Adapter | None
    styles: tuple[Adapter, ...] = Field(strict=False)
    sampler: Sampler
    #: Settings of the sampler that the accelerator brings (e.g. original_inference_steps).
    sampler_settings: dict[str, Setting] = Field(default_factory=dict)
    steps: int
    guidance: float
    width: int
    height: int
    dtype: Dtype
    #: Images in one GPU batch: fixed, because kernels differ with the batch's shape.
    batch_images: int
    #: Of every part that has weights.
    licences: tuple[Licence, ...] = Field(default=(), strict=False)

    @property
    def base_key(self) -> str:
        """Identity of the base alone: engines that share it differ only by adapters."""
        parts = {"base", "config", "vae", "vae_float32", "dtype"}
        return _digest(self.model_dump(include=parts))

    @property
    def engine_key(self) -> str:
        """Identity of what a renderer holds: base, adapters with their weights, dtype."""
        accelerator = _content(self.accelerator) if self.accelerator else None
        styles = [_content(style) for style in canonical(self.styles)]
        return _digest({"base": self.base_key, "adapters": [accelerator, *styles]})

    @property
    def batch_key(self) -> str:
        """Images with the same one may share a GPU batch."""
        call = self.model_dump(
            include={"width", "height", "steps", "guidance", "sampler", "sampler_settings"}
        )
        return _digest({"engine": self.engine_key, "batch": self.batch_images, **call})

    @property
    def title(self) -> str:
        """Its engine's name for people: model, accelerator, styles."""
        adapters = [self.accelerator] if self.accelerator else []
        return " + ".join([self.model, *(one.name for one in (*adapters, *self.styles))])

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


def _content(adapter: Adapter) -> dict[str, Any]:
    """What of an adapter decides weights; the rest is only checked."""
    return adapter.model_dump(exclude={"layout", "modules"})


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
