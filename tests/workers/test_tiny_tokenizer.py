"""The tiny model's tokenizer: one token a word, and no text that it cannot take."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from workers.tiny.captions import vocabulary
from workers.tiny.text import tokens
from workers.tiny.tokenizer import LENGTH, build_tokenizer

HOSTILE = [
    "",
    "   \t\n ",
    "Ein großes rotes Quadrat",
    "画一个红色的圆",
    "🎉👩‍👩‍👧 red 🇩🇪 circle",
    "\x00\x01\x7f\ufffd\u200b\u202e",
    "a\u0301\u0302\u0303 combining",
    "𝔯𝔢𝔡 𝔠𝔦𝔯𝔠𝔩𝔢",
    "<|endoftext|> <|startoftext|> </w>",
    "red " * 500,
]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_every_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in vocabulary():
        if word.isalpha():
            assert len(tokenizer(word).input_ids) == 3, word


@pytest.mark.parametrize("text", HOSTILE)
def test_any_unicode_goes_through(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokens(tokenizer, [text])
    assert ids.shape == (1, LENGTH)
    assert ids[0, 0] == tokenizer.bos_token_id
    assert ids[0, -1] == tokenizer.eos_token_id
    assert int(ids.max()) < len(tokenizer)


def test_text_comes_back(tokenizer: CLIPTokenizer) -> None:
    text = "a big red circle on the left on a white background"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_saved_tokenizer_reads_the_same(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == LENGTH
    for text in HOSTILE:
        assert loaded(text).input_ids == tokenizer(text).input_ids
