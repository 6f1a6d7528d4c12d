"""Scores by nets that the operator names: CLIP, image classifiers, aesthetic predictors.

Weights are safetensors alone, read from this machine; no code that lies beside them is run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from jobs.errors import BadConfiguration
from jobs.filters import FilterEntry
from workers.depot import Depot
from workers.weights import verified

Pictures = NDArray[np.uint8]
Score = Callable[[Pictures, Sequence[str]], NDArray[np.floating]]
#: `local_files_only` and safetensors, whatever lies in the folder.
_SAFELY: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}


def load_net(entry: FilterEntry, depot: Depot) -> Score:
    """The net of a catalog's entry, on a GPU where there is one; raises BadConfiguration."""
    folder, _ = verified(entry.weights, depot)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return _KINDS[entry.kind](folder, entry, device)
    except (OSError, ValueError, KeyError) as error:
        raise BadConfiguration(
            f"the weights do not make a filter of the kind {entry.kind}: "
            f"{str(error).splitlines()[0][:300]}",
            where=f"{entry.source} ({folder})",
            remedy="it takes a folder as transformers' save_pretrained writes it",
        ) from error


def clip_agreement(
    folder: Path, device: torch.device
) -> Callable[[Pictures, Sequence[str]], NDArray[np.float64]]:
    """CLIP score as torchmetrics gives it: cosine of picture and prompt, times 100, at least 0."""
    from transformers import CLIPModel, CLIPProcessor

    net = CLIPModel.from_pretrained(folder, **_SAFELY).to(device).eval()
    prepared = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def agreement(pictures: Pictures, prompts: Sequence[str]) -> NDArray[np.float64]:
        given = prepared(
            text=list(prompts),
            images=[Image.fromarray(one) for one in pictures],
            return_tensors="pt",
            # One length for all batches: a score must not depend on its neighbours' prompts.
            padding="max_length",
            max_length=net.config.text_config.max_position_embeddings,
            truncation=True,
        ).to(device)
        found = net(**given)
        pairs = torch.cosine_similarity(found.image_embeds, found.text_embeds)
        scores: NDArray[np.float64] = (100 * pairs.clamp(min=0)).cpu().numpy().astype(np.float64)
        return scores

    return agreement


def _clip(folder: Path, entry: FilterEntry, device: torch.device) -> Score:
    return clip_agreement(folder, device)


def _classifier(folder: Path, entry: FilterEntry, device: torch.device) -> Score:
    """The probability of one class of an image classifier, 0 to 1."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    net = AutoModelForImageClassification.from_pretrained(folder, **_SAFELY).to(device).eval()
    labels = {str(name).lower(): number for number, name in net.config.id2label.items()}
    if entry.label.lower() not in labels:
        raise ValueError(f"it has no class {entry.label!r}, only {', '.join(labels)}")
    wanted = labels[entry.label.lower()]
    prepared = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")

    @torch.no_grad()
    def probability(pictures: Pictures, _: Sequence[str]) -> NDArray[np.floating]:
        logits = net(**_prepared(prepared, pictures, device)).logits
        return logits.float().softmax(-1)[:, wanted].cpu().numpy().astype(np.float64)

    return probability


def _aesthetic(folder: Path, entry: FilterEntry, device: torch.device) -> Score:
    """The aesthetic score that LAION's predictors give: linear layers on CLIP's unit features.

    github.com/christophschuhmann/improved-aesthetic-predictor and LAION-AI/aesthetic-predictor:
    none has an activation between its layers, so the layers of the file are applied in order.
    """
    from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

    net = CLIPVisionModelWithProjection.from_pretrained(folder, **_SAFELY).to(device).eval()
    prepared = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    layers = _layers(load_file(folder / entry.file), device)

    @torch.no_grad()
    def score(pictures: Pictures, _: Sequence[str]) -> NDArray[np.floating]:
        features = functional.normalize(net(**_prepared(prepared, pictures, device)).image_embeds)
        for weight, bias in layers:
            features = functional.linear(features, weight, bias)
        return features[:, 0].cpu().numpy().astype(np.float64)

    return score


def _layers(
    tensors: dict[str, torch.Tensor], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases in the order of their numbers (`layers.0.weight`, ...)."""
    names = [name.removesuffix("weight") for name in tensors if name.endswith("weight")]
    numbered = sorted(names, key=lambda name: [int(n) for n in name.split(".") if n.isdigit()])
    found = [(tensors[f"{name}weight"], tensors.get(f"{name}bias")) for name in numbered]
    linear = [(one, bias) for one, bias in found if one.ndim == 2 and bias is not None]
    if not linear or len(linear) < len(found) or linear[-1][0].shape[0] != 1:
        raise ValueError("the file does not hold linear layers that end in one number")
    return [(weight.float().to(device), bias.float().to(device)) for weight, bias in linear]


def _prepared(processor: Any, pictures: Pictures, device: torch.device) -> Any:
    images = [Image.fromarray(one) for one in pictures]
    return processor(images=images, return_tensors="pt").to(device)


_KINDS: dict[str, Callable[[Path, FilterEntry, torch.device], Score]] = {
    "clip": _clip,
    "classifier": _classifier,
    "aesthetic": _aesthetic,
}
