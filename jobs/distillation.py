"""A distillation as a value: base, pictures, and how a few-step adapter is to be learned."""

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.catalog import Catalog
from jobs.entries import ModelEntry
from jobs.errors import Conflict
from jobs.recipe import Commercial, Recipe, RecipeRequest

#: Timesteps of every base that we know.
TRAIN_STEPS = 1000

LoraTarget = Literal[
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
]


class DistillRequest(RecipeRequest):
    """What a user asks for; the defaults are those of the published LCM-LoRAs."""

    accelerator: Literal["none"] = "none"
    sampler: Literal["lcm"] = "lcm"
    #: Sampling steps of the pictures made meanwhile and at the end.
    steps: int = Field(default=4, ge=1, le=8)
    guidance: float = Field(default=1.0, ge=1.0, le=1.0)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    data: tuple[str, ...] = Field(min_length=1, strict=False)
    out: str = Field(min_length=1)
    rank: int = Field(default=64, ge=1, le=512)
    #: None: as the rank, so that readers that know no alpha scale by 1 as well.
    alpha: int | None = Field(default=None, ge=1, le=4096)
    #: Ends of the names of the UNet's modules that are changed; none: all of the published ones.
    targets: tuple[LoraTarget, ...] = Field(default=(), strict=False)
    #: DDIM steps of the whole path; the skipping interval k is 1000 / solver_steps.
    solver_steps: int = Field(default=50, ge=5, le=1000)
    w_min: float = Field(default=3.0, ge=0.0, le=30.0)
    w_max: float = Field(default=15.0, ge=0.0, le=30.0)
    w_fall: float = Field(default=0.0, ge=0.0, le=1.0)
    loss: Literal["huber", "l2"] = "huber"
    huber_c: float = Field(default=1e-3, gt=0.0, le=10.0)
    #: Decay of the averaged target; 0: the target is the student itself.
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    learning_rate: float = Field(default=1e-4, gt=0.0, le=1.0)
    warm_steps: int = Field(default=20, ge=0)
    total_steps: int = Field(default=1000, ge=1, le=1_000_000)
    batch: int = Field(default=12, ge=1, le=1024)
    #: Of the UNet: its frozen weights and its arithmetic. The adapter is float32 at all times.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = False
    #: Share of the pictures that training never sees.
    held_out: float = Field(default=0.05, gt=0.0, le=0.5)
    save_every: int = Field(default=100, ge=1)
    sample_every: int = Field(default=200, ge=1)
    #: Processes that train together, each on a GPU, or a core where there are none.
    processes: int = Field(default=1, ge=1, le=1024)
    train_seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.w_min > self.w_max:
            raise ValueError("w_min must not be above w_max")
        if self.steps > self.solver_steps:
            raise ValueError("steps must not be above solver_steps")
        if TRAIN_STEPS % self.solver_steps:
            raise ValueError(f"solver_steps must divide {TRAIN_STEPS}: 50 skips 20 timesteps")
        return self

    @property
    def skip(self) -> int:
        """The interval k: the target is k timesteps nearer to the picture than the student."""
        return TRAIN_STEPS // self.solver_steps


class Distillation(DistillRequest):
    """An accepted request: its base is resolved, and the terms of its licence are known."""

    recipe: Recipe
    licence: str
    commercial: Commercial
    #: Digest of the captioned pictures; empty in plans of earlier versions.
    pictures_sha256: str = ""

    @property
    def identity(self) -> str:
        """What must be the same for a run to go on where another one stopped."""
        # The same pictures may lie elsewhere: `same_pictures` compares what they are.
        free = {"save_every", "sample_every", "out", "data", "pictures_sha256"}
        return self.model_dump_json(exclude=free)

    def same_pictures(self, other: "Distillation") -> bool:
        """Whether both learn from the same pictures, as far as they tell."""
        known = {self.pictures_sha256, other.pictures_sha256} - {""}
        return len(known) < 2


def accept(request: DistillRequest, catalog: Catalog) -> Distillation:
    """The request with its base from the catalog.

    Raises InvalidInput for what the base does not allow, Conflict where the name is taken.
    """
    if request.name in catalog.accelerators:
        raise Conflict(
            f"there is an accelerator {request.name!r} already",
            where="--name",
            remedy="choose another name: jobs know accelerators by it",
        )
    asked = {name: getattr(request, name) for name in RecipeRequest.model_fields}
    recipe = catalog.resolve(RecipeRequest(**asked))
    settings = {"original_inference_steps": request.solver_steps}
    recipe = recipe.model_copy(update={"sampler_settings": settings})
    base: ModelEntry = catalog.models[request.model]
    return Distillation(
        **request.model_dump(), recipe=recipe, licence=base.licence, commercial=base.commercial
    )
