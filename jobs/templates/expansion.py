"""What a user says of templates: how they become rows, and the lists that they name."""

from typing import Literal

from pydantic import Field

from jobs.recipe import Frozen
from jobs.seeds import MAX_SEED

Mode = Literal["combinatorial", "sampled", "balanced"]
#: Rows that a template may become.
MAX_COUNT = 10**11


class Expansion(Frozen):
    """How templates become rows: all combinations in order, drawn ones, or balanced ones."""

    mode: Mode = "combinatorial"
    #: Rows to make of a template; None: every combination once (`combinatorial` alone).
    count: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    #: Of `sampled`: another one, other rows.
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    #: Name -> values, for `__name__` and `{{name}}`.
    lists: dict[str, tuple[str, ...]] = Field(default_factory=dict, strict=False)


class TemplateRequest(Expansion):
    """A prompt source that is one template."""

    template: str = Field(min_length=1)
    negative_prompt: str = ""
