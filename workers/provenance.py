"""Provenance: what a picture's file says of how it was made, and that a machine made it."""

import json
import re
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from jobs.job import Image, Job
from jobs.row_recipe import recipe_for

#: IPTC's word for a picture made by a trained model (NewsCodes, digital source type).
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#: A JPEG holds less than 64 KB of EXIF, and of XMP.
ROOM = 60_000
_CUT = 1_000
#: Our samplers by the names that web UIs have for them.
_SAMPLERS = {"lcm": "LCM", "tcd": "TCD", "ddim": "DDIM", "euler": "Euler", "dpmpp": "DPM++ 2M"}
#: What XML cannot hold even escaped, and JSON leaves as it is.
_NO_XML = re.compile("[\x7f-\x9f\ufffe\uffff]")


def settings_of(job: Job, image: Image) -> dict[str, object]:
    """What is needed to make the picture again, as it stands in its file."""
    recipe = recipe_for(job.recipe, image.row.recipe)
    return {
        "prompt": image.row.prompt,
        "negative_prompt": image.row.negative_prompt,
        "seed": image.seed,
        "model": recipe.model,
        "model_revision": recipe.base.revision,
        "model_source": recipe.base.source,
        "model_sha256": recipe.base.sha256,
        "accelerator": recipe.accelerator.name if recipe.accelerator else "",
        "accelerator_source": recipe.accelerator.weights.source if recipe.accelerator else "",
        "accelerator_sha256": recipe.accelerator.weights.sha256 if recipe.accelerator else "",
        "accelerator_weight": recipe.accelerator.weight if recipe.accelerator else 0.0,
        "styles": {style.name: style.weight for style in recipe.styles},
        "sampler": recipe.sampler,
        "sampler_settings": recipe.sampler_settings,
        "dtype": recipe.dtype,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "width": recipe.width,
        "height": recipe.height,
        "engine_key": recipe.engine_key,
        "generator": f"fewstep {job.fewstep}",
    }


def parameters(settings: Mapping[str, object]) -> str:
    """The text that common web UIs read and fill their fields from.

    The prompt; a line for the negative one; a last line of `Name: value` with commas between.
    """
    lines = [str(settings["prompt"])]
    if settings["negative_prompt"]:
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    sampler = str(settings["sampler"])
    facts = {
        "Steps": settings["steps"],
        "Sampler": _SAMPLERS.get(sampler, sampler),
        "CFG scale": settings["guidance"],
        "Seed": settings["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        "Model hash": str(settings.get("model_sha256", ""))[:10],
        "Model": settings["model"],
        "Version": str(settings["generator"]).replace(" ", "-"),
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in facts.items() if value != ""))
    return "\n".join(lines)


def settings_json(settings: Mapping[str, object]) -> str:
    """The settings as JSON, always the same text."""
    return json.dumps(settings, ensure_ascii=False, sort_keys=True)


def xmp(settings: Mapping[str, object], text: str = "") -> bytes:
    """An XMP packet: made by a trained model, with what, and by choice the settings.

    The mark is IPTC's Photo Metadata property Digital Source Type (Iptc4xmpExt).
    """
    facts = {
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "xmp:CreatorTool": str(settings["generator"]),
    }
    if text:
        facts["fewstep:settings"] = _NO_XML.sub(lambda one: f"\\u{ord(one[0]):04x}", text)
    told = " ".join(f"{name}={quoteattr(value)}" for name, value in facts.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:fewstep="urn:fewstep:" {told}/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def fitting(settings: Mapping[str, object]) -> tuple[bytes, bytes]:
    """The `parameters` text in UTF-16 and the XMP packet with the settings, both below `ROOM`.

    Where prompts are too long for that, they are cut and the settings say so (`cut`).
    """
    comment = parameters(settings).encode("utf-16-be")
    packet = xmp(settings, settings_json(settings))
    if max(len(comment), len(packet)) <= ROOM:
        return comment, packet
    cut = {
        name: value[:_CUT] if isinstance(value, str) else value for name, value in settings.items()
    } | {"cut": True}
    return parameters(cut).encode("utf-16-be"), xmp(cut, settings_json(cut))
