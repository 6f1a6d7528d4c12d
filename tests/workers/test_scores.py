"""Scores: what the tiny model's judge says of true and of wrong pictures, and what is left out."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from jobs.errors import InvalidInput
from workers import tiny
from workers.library_scorer import LibraryScorer
from workers.scores import Mean, Pictures, Sample, features_of, score
from workers.tiny.captions import Attributes, canonical, draw_attributes
from workers.tiny.scenes import render
from workers.tiny.scorer import TinyScorer, drawn_prompts

N = 100


@pytest.fixture(scope="module")
def scorer() -> TinyScorer:
    return TinyScorer(true_pictures=400)


@pytest.fixture(scope="module")
def truth() -> tuple[Attributes, Pictures]:
    """True pictures that the scorer has not seen, and what they show."""
    rng = np.random.default_rng(5)
    attributes = draw_attributes(rng, N, "seen")
    return attributes, render(rng, attributes).pictures


def samples(
    prompts: Sequence[str], pictures: Pictures, references: Pictures | None = None
) -> list[Sample]:
    """One sample of each."""
    others = [None] * len(pictures) if references is None else list(references)
    return [Sample(*one) for one in zip(prompts, pictures, others, strict=True)]


def test_true_pictures_agree_with_their_prompts_and_lie_near_the_truth(
    scorer: TinyScorer, truth: tuple[Attributes, Pictures]
) -> None:
    attributes, pictures = truth
    right = score(scorer, samples(canonical(attributes), pictures, pictures), None)
    wrong = score(scorer, samples(canonical(attributes), pictures[::-1], pictures), None)
    noise = np.random.default_rng(1).integers(0, 256, pictures.shape, dtype=np.uint8)
    nothing = score(scorer, samples(canonical(attributes), noise), None)
    assert right.images == N
    assert right.agreement is not None
    assert wrong.agreement is not None
    assert right.agreement.mean > 0.97
    assert wrong.agreement.mean < 0.1
    assert right.perceptual == Mean(0.0, 0.0, N)
    assert wrong.perceptual is not None
    assert wrong.perceptual.mean > 0.2
    assert nothing.perceptual is None
    assert right.frechet is not None
    assert nothing.frechet is not None
    assert nothing.frechet > 5 * right.frechet


def test_outlines_are_seen(scorer: TinyScorer) -> None:
    rng = np.random.default_rng(6)
    attributes = draw_attributes(rng, N, "seen")
    hollow = render(rng, attributes, hollow=True).pictures
    assert (
        score(scorer, samples(canonical(attributes), hollow), None).details["outlined"].mean > 0.9
    )


def test_prompts_of_other_words_are_not_judged(
    scorer: TinyScorer, truth: tuple[Attributes, Pictures]
) -> None:
    prompts = [*drawn_prompts(1), "a dog", ""]
    found = score(scorer, samples(prompts, truth[1][:3]), None)
    assert found.agreement is not None
    assert found.agreement.n == 1
    assert score(scorer, samples(["a dog"] * 2, truth[1][:2]), None).agreement is None


def test_a_mean_tells_its_error_and_passes_over_what_is_unknown() -> None:
    assert Mean.of(np.array([np.nan])) is None
    found = Mean.of(np.array([1.0, 3.0, np.nan]))
    assert found == Mean(2.0, 1.0 / np.sqrt(2), 2)
    sure = Mean.of(np.ones(98), share=True)
    assert sure is not None
    assert sure.mean == 1.0
    assert sure.error == pytest.approx(np.sqrt(0.99 * 0.01 / 98))


def test_without_libraries_or_weights_a_real_model_s_table_says_what_would_help(
    monkeypatch: pytest.MonkeyPatch, truth: tuple[Attributes, Pictures]
) -> None:
    monkeypatch.delenv("FEWSTEP_METRICS_CLIP", raising=False)
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    scorer = LibraryScorer(None)
    assert [one.partition(":")[0] for one in scorer.missing] == [
        "Frechet distance",
        "perceptual distance",
        "agreement with the prompt",
    ]
    assert "pip install 'fewstep[metrics]'" in scorer.missing[1]
    assert "FEWSTEP_METRICS_CLIP must name its weights" in scorer.missing[2]
    some = samples(["a"] * 3, truth[1][:3], truth[1][:3])
    assert features_of(scorer, iter(some)) is None
    found = score(scorer, some, None)
    assert (found.frechet, found.perceptual, found.agreement) == (None, None, None)


def test_clip_tells_how_a_picture_agrees_with_its_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, truth: tuple[Attributes, Pictures]
) -> None:
    """A CLIP with random weights: what is tested is the path, from folder to score."""
    tokenizer = CLIPTokenizer.from_pretrained(tiny.MODEL_DIR / "tokenizer")
    small = {"hidden_size": 32, "intermediate_size": 64}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = small | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    vision = small | {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessorPil(**sizes), tokenizer).save_pretrained(tmp_path)
    monkeypatch.setenv("FEWSTEP_METRICS_CLIP", str(tmp_path))
    scorer = LibraryScorer(None)
    prompts = ["a red circle", "a big blue star on the left " * 9, ""]
    first, again = (scorer.read(truth[1][:3], prompts).agreement for _ in range(2))
    assert first is not None
    assert again is not None
    assert ((first >= 0) & (first <= 100)).all()
    assert first.tolist() == again.tolist()


def test_a_folder_of_truth_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InvalidInput, match="no true pictures"):
        LibraryScorer(tmp_path)
