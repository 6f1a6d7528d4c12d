"""The registry: what is shipped is whole, and what an operator adds is checked."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.architectures import fingerprint, name_of
from jobs.catalog import SHIPPED, Catalog, load_catalog
from jobs.errors import BadConfiguration, InvalidInput
from jobs.job import JobRequest
from jobs.licences import licence_notes
from jobs.recipe import Recipe, RecipeRequest, StyleWeight
from jobs.rows import Row
from jobs.samplers import SAMPLERS
from jobs.submit import dry_run_job

FREE = load_catalog(allow_noncommercial=True)
CATALOG = load_catalog()


def own(tmp_path: Path, text: str) -> Catalog:
    file = tmp_path / "own.toml"
    file.write_text(text, "utf-8")
    return load_catalog(file)


@pytest.mark.parametrize("name", CATALOG.accelerators)
def test_every_accelerator_makes_a_recipe(name: str) -> None:
    """With its defaults on each model it fits; nothing in it contradicts itself."""
    entry = FREE.accelerators[name]
    fitting = [n for n, model in FREE.models.items() if model.architecture in entry.architectures]
    assert fitting
    for model in fitting:
        recipe = FREE.resolve(RecipeRequest(model=model, accelerator=name))
        assert recipe.sampler == entry.sampler
        assert (recipe.steps, recipe.guidance) == (entry.steps, entry.guidance)
        assert recipe.guided is (entry.guidance > 1.0)
        assert recipe.accelerator is not None
        assert recipe.accelerator.weights.file == entry.file
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_job_may_use_any_sampler(sampler: str) -> None:
    request = {"accelerator": "none", "sampler": sampler, "guidance": 8.0}
    recipe = CATALOG.resolve(RecipeRequest.model_validate(request))
    assert recipe.sampler == sampler
    assert recipe.guided
    with pytest.raises(InvalidInput, match="outside"):
        CATALOG.resolve(RecipeRequest.model_validate({**request, "steps": 101}))


def test_shipped_files_pin_nothing_by_hand() -> None:
    """A digest is written by a program or not at all: only what is shipped has one."""
    tables = [tomllib.loads((Path("jobs") / name).read_text("utf-8")) for name in SHIPPED]
    for table in tables:
        for entries in table.values():
            for entry in entries.values():
                assert ("sha256" in entry) == str(entry.get("source", "")).startswith("builtin:")


def refused(catalog: Catalog, **fields: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        catalog.resolve(RecipeRequest.model_validate(fields))
    assert caught.value.remedy
    return caught.value


def test_noncommercial_needs_consent() -> None:
    error = refused(CATALOG, model="sdxl", accelerator="dmd2-sdxl")
    assert "forbids commercial use" in error.message
    assert "FEWSTEP_ALLOW_NONCOMMERCIAL=true" in str(error)
    recipe = FREE.resolve(RecipeRequest(model="sdxl", accelerator="dmd2-sdxl"))
    assert any("forbids commercial use" in note for note in licence_notes(recipe.licences))


def test_a_dry_run_shows_the_licence() -> None:
    recipe = RecipeRequest(model="sdxl", accelerator="dmd2-sdxl")
    reply = dry_run_job(
        FREE,
        tenant="t",
        request=JobRequest(recipe=recipe),
        rows=[Row(prompt="a cat")],
        idempotency_key="k",
    )
    assert [one for one in reply.warnings if "dmd2-sdxl" in one and "forbids commercial" in one]


def test_an_unknown_licence_is_a_note() -> None:
    recipe = CATALOG.resolve(RecipeRequest(model="sdxl", accelerator="hyper-sdxl-4"))
    assert [note for note in licence_notes(recipe.licences) if "is not known" in note]
    assert not list(licence_notes(CATALOG.resolve(RecipeRequest()).licences))


def test_licences_name_every_part() -> None:
    request = RecipeRequest(styles=(StyleWeight(name="outline"),))
    parts = [(one.part, one.name) for one in CATALOG.resolve(request).licences]
    assert parts == [("model", "tiny"), ("accelerator", "lcm-tiny"), ("style", "outline")]


def test_two_accelerators_at_once() -> None:
    """As a list, as a style, and as a style of another name with the same file."""
    with pytest.raises(ValidationError, match="accelerator"):
        RecipeRequest.model_validate({"accelerator": ["lcm-tiny", "lcm-tiny"]})
    assert "is an accelerator" in refused(CATALOG, styles=[{"name": "lcm-tiny"}]).message
    entry = CATALOG.styles["outline"].model_copy(update={"source": "builtin:lcm_lora"})
    disguised = CATALOG.model_copy(update={"styles": {"fast": entry}})
    assert "is an accelerator" in refused(disguised, styles=[{"name": "fast"}]).message


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ({"sampler": "plms"}, "sampler", "euler"),
        ({"guidance": 8.0}, "guidance", "0 to 2"),
        ({"model": "sdxl", "accelerator": "lightning-sdxl-4", "guidance": 2.0}, "guidance", "0 to"),
        ({"model": "sdxl", "accelerator": "pcm-sdxl-4", "guidance": 0.5}, "guidance", "1 to 2"),
        ({"model": "sdxl", "accelerator": "lightning-sdxl-4", "steps": 8}, "steps", "in 4 steps"),
        ({"model": "sdxl", "accelerator": "lcm-sd15"}, "accelerator", "it fits: sd15"),
        ({"eta": 0.5}, "eta", "'tcd' has one"),
        ({"vae": "sdxl-fp16-fix"}, "vae", "it fits: sdxl"),
        ({"dtype": "float16"}, "dtype", "float32 or bfloat16"),
    ],
)
def test_what_does_not_go_together(fields: dict[str, object], where: str, said: str) -> None:
    if where == "sampler":
        with pytest.raises(ValidationError, match=said):
            RecipeRequest.model_validate(fields)
        return
    error = refused(CATALOG, **fields)
    assert error.where == where
    assert said in str(error)


def test_a_style_weighs_what_it_should() -> None:
    def weight(catalog: Catalog, **style: object) -> float:
        asked = StyleWeight.model_validate({"name": "outline", **style})
        return catalog.resolve(RecipeRequest(styles=(asked,))).styles[0].weight

    bare = CATALOG.styles["outline"].model_copy(update={"weight": None})
    mine = CATALOG.accelerators["lcm-tiny"].model_copy(update={"style_weight": 0.6})
    silent = CATALOG.model_copy(
        update={"styles": {"outline": bare}, "accelerators": {"lcm-tiny": mine}}
    )
    assert weight(CATALOG, weight=0.3) == 0.3
    assert weight(CATALOG) == 0.8
    assert weight(silent) == 0.6


def test_an_operators_fine_tune_takes_the_shipped_accelerators(tmp_path: Path) -> None:
    (tmp_path / "dream.safetensors").write_bytes(b"")
    catalog = own(
        tmp_path,
        """
[models.dream]
architecture = "sd15"
source = "path:dream.safetensors"
config = "path:sd15-config"
licence = "creativeml-openrail-m"
width = 512
height = 512
size_multiple = 8
size_min = 256
size_max = 1024
dtype = "bfloat16"
batch_images = 16
accelerator = "lcm-sd15"
sampler = "dpmpp"
steps = 25
guidance = 7.5
""",
    )
    recipe = catalog.resolve(RecipeRequest(model="dream", accelerator="tcd-sd15"))
    assert recipe.base.source == f"path:{tmp_path / 'dream.safetensors'}"
    assert recipe.config is not None
    assert recipe.config.source == f"path:{tmp_path / 'sd15-config'}"
    assert recipe.fingerprint == CATALOG.architectures["sd15"].fingerprint


WRONG = {
    "a pickle": ('file = "pytorch_lora_weights.bin"', "file"),
    "a way out of the folder": ('file = "../other.safetensors"', "file"),
    "an address": ('source = "http://example.org/a"', "source"),
    "an unknown architecture": ('architectures = ["sd99"]', "there is no 'sd99'"),
    "an unknown sampler": ('sampler = "plms"', "sampler"),
    "a setting that LCM ignores": ('sampler_settings = { timestep_spacing = "trailing" }', "no se"),
    "steps beyond the sampler": ("steps_max = 80", "50 steps at most"),
    "a default beyond the range": ("guidance = 3.0", "guidance must lie"),
    "timesteps for other steps": ("sampler_settings = { timesteps = [999, 499] }", "2 timesteps"),
    "a short digest": ('sha256 = "abc"', "sha256"),
    "a licence nobody understands": ('commercial = "perhaps"', "commercial"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_operators_accelerator_is_checked(tmp_path: Path, what: str) -> None:
    line, said = WRONG[what]
    good = {
        "architectures": '["sd15"]',
        "source": '"hub:a/b"',
        "licence": '"unknown"',
        "sampler": '"lcm"',
        "steps_min": "1",
        "steps_max": "8",
        "steps": "4",
        "guidance_max": "2.0",
        "guidance": "1.0",
        "weight": "1.0",
    }
    name, _, value = line.partition(" = ")
    fields = {**good, name: value}
    text = "[accelerators.mine]\n" + "\n".join(f"{k} = {v}" for k, v in fields.items())
    with pytest.raises(BadConfiguration) as caught:
        own(tmp_path, text)
    assert said in str(caught.value)


def test_architectures_are_told_apart_by_configuration() -> None:
    known = CATALOG.architectures
    assert len({entry.fingerprint for entry in known.values()}) == len(known)
    for name, entry in known.items():
        assert name_of(fingerprint(entry.configuration), known) == name
    sd15 = {**known["sd15"].configuration, "sample_size": 96, "dropout": 0.1}
    assert name_of(fingerprint({**sd15, "attention_head_dim": [8, 8, 8, 8]}), known) == "sd15"
    assert name_of(fingerprint({**sd15, "in_channels": 9}), known) == ""
    ssd = {**known["ssd-1b"].configuration, "transformer_layers_per_block": [[1], [2, 2], [4, 4]]}
    assert name_of(fingerprint(ssd), known) == "ssd-1b"
