"""The tiny model's text encoder: two CLIP layers that learn attributes before the UNet does."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from workers.tiny.captions import VALUES, captions, draw_attributes
from workers.tiny.checkpoints import Run, device
from workers.tiny.tokenizer import LENGTH, build_tokenizer

WIDTH = 64
_BATCH = 192


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained encoder of about 0.15 million parameters."""
    end = tokenizer.eos_token_id
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=end,
    )
    return CLIPTextModel(config)


def tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token numbers int64 [n, LENGTH], padded and cut as the diffusers pipeline does."""
    found = tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids: Tensor = found.input_ids
    return ids


class _Reader(nn.Module):
    """Reads the attributes off a caption's states: off their mean, and off the last one."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [len(values) for values in VALUES.values()]
        self.mean = nn.ModuleList(nn.Linear(WIDTH, size) for size in sizes)
        self.last = nn.ModuleList(nn.Linear(WIDTH, size) for size in sizes)

    def forward(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        mean, last = states.mean(1), states[:, -1]
        return [(one(mean), other(last)) for one, other in zip(self.mean, self.last, strict=True)]


def train_text_encoder(minutes: float = 2.0) -> CLIPTextModel:
    """Teach the encoder to tell which attributes a right caption names."""
    torch.manual_seed(3)
    tokenizer = build_tokenizer()
    encoder, reader = build_text_encoder(tokenizer).to(device()), _Reader().to(device())
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    modules = {"encoder": encoder, "reader": reader}
    run = Run("text", modules, optimiser, minutes, decay=0.99)
    rng = np.random.default_rng([3, run.step])
    while not run.done:
        attributes = draw_attributes(rng, _BATCH, "all")
        texts, named = captions(rng, attributes)
        readings = reader(encoder(tokens(tokenizer, texts).to(device())).last_hidden_state)
        table = torch.from_numpy(attributes.table()).to(device())
        known = torch.from_numpy(named).to(device())
        loss = torch.zeros((), device=device())
        for k, pair in enumerate(readings):
            for logits in pair:
                each = functional.cross_entropy(logits, table[:, k], reduction="none")
                loss = loss + (each * known[:, k]).sum() / known[:, k].sum()
        run.update(loss)
        if run.step % 100 == 0:
            run.log(loss=round(loss.item(), 4))
    trained: CLIPTextModel = run.averaged("encoder")
    return trained
