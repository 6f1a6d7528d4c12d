"""Bad input: bodies that are no JSON, jobs and recipes that nobody can render."""

from tests.bad_input.cases import GOOD, Case, chunks, inline, raw, recipe

# Words that a reply must hold are separated by "|".
FORM = [
    raw("empty body", 400, "bad_json", "body|not JSON", b""),
    raw("no JSON", 400, "bad_json", "body|character 1", b"prompts=1"),
    raw("bad UTF-8", 400, "bad_json", "byte 15|UTF-8", b'{"prompts": ["\xff"]}'),
    raw("trailing bytes", 400, "bad_json", "Extra data", b'{"prompts": ["a"]} x'),
    raw("deep nesting", 400, "bad_json", "nested", b"[" * 100_000),
    raw("5000 digits", 400, "bad_json", "number", b'{"job": {"seed": ' + b"9" * 5000 + b"}}"),
    raw("an array", 422, "invalid_input", "body|object", b'["a"]'),
    raw(
        "twin fields",
        422,
        "invalid_input",
        "'prompts' is given twice",
        b'{"prompts": ["a"], "prompts": ["b"]}',
    ),
    raw(
        "a twin among 500 000 fields",
        422,
        "invalid_input",
        "'n0' is given twice",
        b"{" + b", ".join(b'"n%d": 0' % number for number in range(500_000)) + b', "n0": 1}',
    ),
    raw(
        "NaN", 422, "not_finite", "NaN", b'{"job": {"recipe": {"guidance": NaN}}, "prompts": ["a"]}'
    ),
    raw(
        "1e999",
        422,
        "not_finite",
        "job.recipe.guidance|finite",
        b'{"job": {"recipe": {"guidance": 1e999}}, "prompts": ["a"]}',
    ),
    raw(
        "1e999 in a column",
        422,
        "invalid_input",
        "prompts, row 1|score|finite",
        b'{"prompts": [{"prompt": "a", "score": 1e999}]}',
    ),
    raw(
        "400 digits in a column",
        422,
        "invalid_input",
        "score|64 bits",
        b'{"prompts": [{"prompt": "a", "score": ' + b"9" * 400 + b"}]}",
    ),
    raw(
        "lone surrogate",
        422,
        "bad_text",
        "prompts, row 1|surrogate",
        b'{"prompts": ["\\ud800"]}',
    ),
    raw(
        "lone surrogate in the name",
        400,
        "bad_json",
        "job",
        b'{"job": {"name": "\\ud800"}, "prompts": ["a"]}',
    ),
    raw("NUL", 422, "bad_text", "prompts, row 1|NUL", b'{"prompts": ["a\\u0000"]}'),
    raw(
        "gzip",
        415,
        "unsupported_media_type",
        "Content-Encoding",
        b"x" * 50,
        **{"Content-Encoding": "gzip"},
    ),
    raw(
        "another type",
        415,
        "unsupported_media_type",
        "Content-Type|application/json",
        b"{}",
        **{"Content-Type": "text/plain"},
    ),
    raw(
        "a huge body", 413, "too_large", "8000000 bytes|file", b'{"prompts": ["' + b"a" * 9_000_000
    ),
    raw("a huge body in chunks", 413, "too_large", "8000000 bytes|file", chunks(9_000_000)),
    raw(
        "no boundary", 400, "bad_form", "boundary", b"x", **{"Content-Type": "multipart/form-data"}
    ),
    raw(
        "a broken form",
        400,
        "bad_form",
        "body",
        b"nonsense",
        **{"Content-Type": "multipart/form-data; boundary=x"},
    ),
    Case(
        "unknown field of the body",
        422,
        "unknown_field",
        "'prompt'|prompts",
        send={"json": {"prompt": ["a"]}},
    ),
]

HEAVY, LIGHT = {"name": "outline", "weight": 9.0}, {"name": "outline", "weight": -9.0}

JOB = [
    inline("unknown field", "unknown_field", "job.stpes|spelling", stpes=4),
    inline("unknown field of the recipe", "unknown_field", "job.recipe.cfg", recipe={"cfg": 1}),
    inline("text for a number", "wrong_type", "job.repeats|integer", repeats="4"),
    inline("true for a number", "wrong_type", "job.repeats|integer", repeats=True),
    inline("a fraction of a step", "wrong_type", "job.recipe.steps", recipe={"steps": 4.0}),
    inline("seed of 64 bits", "out_of_range", "job.seed|4294967295", seed=2**64),
    inline("negative seed", "out_of_range", "job.seed|0", seed=-1),
    inline("zero repeats", "out_of_range", "job.repeats|1", repeats=0),
    inline("negative repeats", "out_of_range", "job.repeats|1", repeats=-3),
    inline("too many repeats", "out_of_range", "job.repeats|100000", repeats=10**9),
    inline("zero images a shard", "out_of_range", "job.shard_images|1", shard_images=0),
    inline("too many images a shard", "out_of_range", "job.shard_images|10000", shard_images=10**6),
    inline("priority 999", "out_of_range", "job.priority|9", priority=999),
    inline("quality 101", "out_of_range", "job.quality|100", quality=101),
    inline("unknown format", "not_allowed", "job.format|'png', 'jpeg' or 'webp'", format="gif"),
    inline("control character", "bad_text", "job.name", name="a\x1b[31m"),
    inline(
        "too many shards",
        "invalid_input",
        "shard_images|8000000 shards|several jobs",
        prompts=GOOD * 100,
        repeats=100_000,
        shard_images=1,
    ),
    inline(
        "unknown filter",
        "invalid_input",
        "filters|'beauty'|prompt_agreement",
        filters=[{"name": "beauty"}],
    ),
    inline(
        "a filter's module",
        "unknown_field",
        "job.filters.0.plugin",
        filters=[{"name": "x", "plugin": "os:system"}],
    ),
    inline("accept without a filter", "invalid_input", "job|accept needs a filter", accept=2),
    inline("101 tries", "out_of_range", "job.max_tries|100", max_tries=101),
    inline("long name", "out_of_range", "job.name|200", name="a" * 201),
    Case(
        "job is no object",
        422,
        "invalid_input",
        "job|object",
        send={"json": {"job": [1], "prompts": GOOD}},
    ),
]

RECIPE = [
    recipe("unknown model", "model|'sd99'|tiny", model="sd99"),
    recipe("unknown accelerator", "accelerator|'turbo'|lcm-tiny", accelerator="turbo"),
    recipe("another model's accelerator", "accelerator|it fits: sd15", accelerator="lcm-sd15"),
    recipe("unknown style", "style|'oil'|outline", styles=[{"name": "oil"}]),
    recipe("a style twice", "styles|twice", styles=[{"name": "outline"}] * 2),
    recipe("zero steps", "steps|choose 1 to 8", steps=0),
    recipe("10000 steps", "steps|choose 1 to 8", steps=10_000),
    recipe("the teacher's steps", "steps|choose 1 to 100", steps=101, accelerator="none"),
    recipe("negative guidance", "guidance|0 to 2", guidance=-5.0),
    recipe("strong guidance with LCM", "guidance|0 to 2", guidance=7.5),
    recipe("another sampler", "sampler|'lcm'", sampler="euler"),
    recipe("width not of 16", "width|multiple of 16|nearest is 64", width=63),
    recipe("width beyond", "width|nearest is 128", width=1_000_003),
    recipe("width of 400 digits", "width|nearest is 128", width=10**400),
    recipe("zero height", "height|nearest is 32", height=0),
    recipe("negative height", "height|nearest is 32", height=-64),
    recipe("a heavy style", "job.recipe.styles.0.weight|4", code="out_of_range", styles=[HEAVY]),
    recipe("a light style", "styles.0.weight|-4", code="out_of_range", styles=[LIGHT]),
    inline(
        "a style's path",
        "bad_text",
        "job.recipe.styles.0.name",
        recipe={"styles": [{"name": "../../etc/passwd"}]},
    ),
    inline("a model's address", "bad_text", "job.recipe.model", recipe={"model": "http://a/b"}),
]
