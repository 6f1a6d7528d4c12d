"""Text into embeddings: distinct prompts once, in batches of a fixed shape."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workers.engine import Engine

#: Distinct prompts whose embeddings are kept (SDXL: 320 KB each in half precision).
CACHE_PROMPTS = 512


@dataclass(frozen=True)
class Embedding:
    """One prompt as the UNet reads it: `tokens` is `[length, width]`, `pooled` SDXL's `[width]`."""

    tokens: torch.Tensor
    pooled: torch.Tensor | None
    #: Tokens beyond what the text encoder reads.
    lost: int


class TextEncoder:
    """Encodes prompts with an engine's text encoders, remembering the latest ones.

    Every call has the same batch shape, filled up with empty prompts, so that an embedding does
    not depend on who was encoded beside it.
    """

    def __init__(self, engine: Engine, batch: int) -> None:
        self._engine = engine
        self._batch = batch
        self._kept: OrderedDict[tuple[str, bool], Embedding] = OrderedDict()

    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> list[Embedding]:
        """The embeddings of `prompts`, in their order.

        `negative`: as the pipelines treat negative prompts (SDXL: none means zeros).
        """
        wanted = dict.fromkeys((prompt, negative) for prompt in prompts)
        missing = [key for key in wanted if key not in self._kept]
        fresh: dict[tuple[str, bool], Embedding] = {}
        for start in range(0, len(missing), self._batch):
            fresh.update(self._encode_batch(missing[start : start + self._batch]))
        found = {key: fresh.get(key) or self._kept[key] for key in wanted}
        for key, embedding in found.items():
            self._kept[key] = embedding
            self._kept.move_to_end(key)
        while len(self._kept) > CACHE_PROMPTS:
            self._kept.popitem(last=False)
        return [found[(prompt, negative)] for prompt in prompts]

    def _encode_batch(self, keys: list[tuple[str, bool]]) -> dict[tuple[str, bool], Embedding]:
        pipeline = self._engine.pipeline
        texts = [text for text, _ in keys]
        padded = texts + [""] * (self._batch - len(texts))
        result = pipeline.encode_prompt(
            padded,
            device=self._engine.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        tokens = result[0]
        pooled = result[2] if self._engine.family == "sdxl" else None
        found = {}
        for row, (text, negative) in enumerate(keys):
            # Copies: a view would keep its whole padded batch alive in the cache.
            embedding = Embedding(
                tokens=tokens[row].clone(),
                pooled=None if pooled is None else pooled[row].clone(),
                lost=self._lost(text),
            )
            if negative and not text and pooled is not None and _zeroed(pipeline):
                nothing = torch.zeros_like(tokens[row])
                embedding = Embedding(nothing, torch.zeros_like(pooled[row]), 0)
            found[(text, negative)] = embedding
        return found

    def _lost(self, text: str) -> int:
        tokenizer = self._engine.pipeline.tokenizer
        limit = int(tokenizer.model_max_length)
        count = len(tokenizer(text, truncation=False, verbose=False).input_ids)
        return max(0, count - limit)


def _zeroed(pipeline: Any) -> bool:
    """Whether this base takes zeros, not the embedding of "", for no negative prompt."""
    return bool(pipeline.config.get("force_zeros_for_empty_prompt", True))
