"""What a catalog holds besides accelerators: base models, autoencoders and styles."""

from pydantic import Field

from jobs.recipe import Alpha, Commercial, Dtype, Frozen, Layout, Sampler, Weights

SOURCE = r"^(builtin:|path:|hub:|s3://).+$"
#: Safetensors alone: a name that ends otherwise is refused before anything is opened.
FILE = r"^([A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$|^$"
DIGEST = r"^[0-9a-f]{64}$|^$"


class SourceEntry(Frozen):
    """Weights somewhere, and the terms under which they may be used."""

    source: str = Field(pattern=SOURCE)
    #: One file of the source, where it holds several.
    file: str = Field(default="", pattern=FILE)
    revision: str = ""
    sha256: str = Field(default="", pattern=DIGEST)
    #: By its SPDX name, or the name its makers give it; `unknown` where they give none.
    licence: str
    commercial: Commercial = "unknown"

    @property
    def weights(self) -> Weights:
        """Where they are and what they must be."""
        return Weights(
            source=self.source, file=self.file, revision=self.revision, sha256=self.sha256
        )


class ModelEntry(SourceEntry):
    """A base model: where it is, and the sizes, in pixels, that it can make."""

    architecture: str
    #: Which files of the folder: `fp16` stands for `*.fp16.safetensors`.
    variant: str = Field(default="", pattern=r"^[a-z0-9_]{0,20}$")
    #: Of a base that is one file: the folder or hub with its configuration and tokenizers.
    config: str = Field(default="", pattern=f"{SOURCE}|^$")
    config_revision: str = ""
    #: The autoencoder it is used with; "" for its own.
    vae: str = ""
    width: int
    height: int
    size_multiple: int
    size_min: int
    size_max: int
    dtype: Dtype
    batch_images: int = Field(ge=1, le=1024)
    accelerator: str | None = None
    sampler: Sampler
    steps: int
    guidance: float
    #: What its renderers ask Ray for: a kind of GPU by Ray's name for it, bytes of a node's memory.
    gpu: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,60}$")
    node_memory: int = Field(default=0, ge=0)

    @property
    def weights(self) -> Weights:
        """Where they are and what they must be."""
        return super().weights.model_copy(update={"variant": self.variant})

    @property
    def configuration(self) -> Weights | None:
        """Where its configuration is, if not beside its weights."""
        if not self.config:
            return None
        return Weights(source=self.config, revision=self.config_revision)


class AdapterEntry(SourceEntry):
    """What accelerators and styles have in common: a LoRA and the architectures it fits."""

    architectures: tuple[str, ...] = Field(min_length=1, strict=False)
    alpha: Alpha = "file"
    layout: Layout = "any"
    #: Modules that it changes; 0 where nobody counted them.
    modules: int = Field(default=0, ge=0)
    #: Numbers in it; 0 where nobody counted them.
    parameters: int = Field(default=0, ge=0)


class StyleEntry(AdapterEntry):
    """A style LoRA; `weight` is its default lambda, the accelerator's where it is left out."""

    weight: float | None = None


class VaeEntry(SourceEntry):
    """An autoencoder that may stand in for a base's own."""

    architectures: tuple[str, ...] = Field(min_length=1, strict=False)
