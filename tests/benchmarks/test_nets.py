"""The benchmark's nets are the published ones: parameters and FLOP, counted on meta tensors."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.nets import TOKENS, add_lora, architectures, byte_tokenizer

ALL = architectures()


def tflop(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e12


def millions(net: torch.nn.Module) -> float:
    return sum(values.numel() for values in net.parameters()) / 1e6


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_of_the_real_nets(name: str) -> None:
    one = ALL[name]
    with torch.device("meta"):
        nets = {"unet": one.unet(), "vae": one.vae()}
        encoders = one.text_encoders()
    nets |= dict(zip(("text_encoder", "text_encoder_2"), encoders, strict=False))
    assert {part: round(millions(net), 1) for part, net in nets.items()} == one.facts["millions"]


@pytest.mark.parametrize("name", [name for name in ALL if "lora" in ALL[name].facts])
def test_the_lora_sits_on_the_modules_of_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        unet = ALL[name].unet()
        before = millions(unet)
        modules = add_lora(unet)
    assert modules == ALL[name].facts["lora"]["modules"]
    assert round(millions(unet) - before, 2) == ALL[name].facts["lora"]["millions"]


@pytest.mark.parametrize("name", ALL)
def test_flop_are_counted(name: str) -> None:
    one, edge = ALL[name], ALL[name].pixels // 8
    with torch.device("meta"):
        unet, vae, encoders = one.unet(), one.vae(), one.text_encoders()
        states = torch.empty(1, TOKENS, unet.config.cross_attention_dim)
        latents, tokens = torch.empty(1, 4, edge, edge), torch.zeros(1, TOKENS, dtype=torch.long)
        added = None
        if one.family == "sdxl":
            added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        counted = {
            "unet": tflop(
                lambda: unet(
                    latents,
                    torch.tensor(5),
                    encoder_hidden_states=states,
                    added_cond_kwargs=added,
                )
            ),
            "vae": tflop(lambda: vae.decode(latents)),
            "text": tflop(lambda: [encoder(tokens) for encoder in encoders]),
        }
    assert {part: round(count, 3) for part, count in counted.items()} == one.facts["tflop"]
    assert one.tflop(4) == pytest.approx(
        4 * counted["unet"] + counted["vae"] + counted["text"], abs=0.005
    )


def test_any_text_is_77_tokens() -> None:
    tokenizer = byte_tokenizer()
    found = tokenizer(["", "ein Bär ✓", "x" * 500], padding="max_length", truncation=True)
    assert [len(ids) for ids in found.input_ids] == [77, 77, 77]
    assert {ids[0] for ids in found.input_ids} == {49_406}
    assert {ids[-1] for ids in found.input_ids} == {49_407}
