"""Bad input: prompts and prompt files."""

from tests.bad_input.cases import Case, file, inline, row

ROWS = [
    inline("no prompts", "empty", "prompts|at least one", prompts=[]),
    inline("prompts missing", "invalid_input", "prompts|list", prompts=None),
    inline("only blanks", "empty", "prompts, row 1|blank", prompts=[" ", "\t"]),
    inline("a number", "invalid_input", "prompts, row 2|text", prompts=["a", 5]),
    inline("a list", "invalid_input", "prompts, row 1|text", prompts=[["a"]]),
    inline("2 M prompts", "too_large", "file", status=413, prompts=["a"] * 1_999_999),
    inline("10001 prompts", "too_large", "10000|file", status=413, prompts=["a"] * 10_001),
    inline("no prompt in it", "invalid_input", "row 1|missing|text", prompts=[{"text": "a"}]),
    inline("long prompt", "invalid_input", "row 1|8001|8000", prompts=["a" * 8_001]),
    row("blank prompt", "blank|remove", code="empty", prompt="  "),
    row("prompt is a number", "prompt is not text", prompt=5),
    row("row seed of 33 bits", "seed|4294967295", seed=2**32),
    row("negative row seed", "seed|4294967295", seed=-1),
    row("row seed is text", "seed", seed="7"),
    row("negative prompt is a number", "negative_prompt is not text", negative_prompt=0),
    row("steps per row", "'steps' cannot be set per row|whole job", steps=2),
    row("column name", "column name|letters", **{"a b": 1}),
    row("column name with a line feed", "column name|letters", **{"a\n": 1}),
    row("NUL in a column", "my_label holds a NUL", code="bad_text", my_label="a\0b"),
    row("64-bit column", "score|64 bits|text", score=2**64),
    inline(
        "a column of ours",
        "invalid_input",
        "row 1|'sha256'|my_sha256",
        prompts=[{"prompt": "a", "sha256": "x"}],
    ),
    row("65 columns", "64 columns", **{f"c{number}": 1 for number in range(65)}),
]

FILES = [
    file("empty file", "rows.jsonl|no prompt", b"", code="empty"),
    file("only blank lines", "rows.txt|no prompt", b"\n\n", filename="rows.txt", code="empty"),
    file(
        "blank line",
        "rows.txt, line 2|blank|remove",
        b"a\n \nb\n",
        filename="rows.txt",
        code="empty",
    ),
    file("not UTF-8", "rows.txt, line 2|byte 2|UTF-8", b"a\nb\xff\n", filename="rows.txt"),
    file("NUL in a line", "rows.txt, line 1|NUL", b"a\0\n", filename="rows.txt", code="bad_text"),
    file(
        "broken line", "rows.jsonl, line 2|not JSON|one JSON object", b'{"prompt": "a"}\n{"prom\n'
    ),
    file("NaN in a line", "line 1|NaN", b'{"prompt": "a", "score": NaN}\n'),
    file("twin fields in a line", "line 1|twice", b'{"prompt": "a", "prompt": "b"}\n'),
    file("deep line", "line 1|nested", b"[" * 100_000 + b"\n"),
    file("a line is a list", "line 1|object", b'["a"]\n'),
    file("surrogate in a line", "line 1|surrogate", b'{"prompt": "\\ud800"}\n', code="bad_text"),
    file("long line", "line 1|1000000 bytes", b"a" * 1_000_001, status=413, code="too_large"),
    file(
        "late bad line",
        "line 2501|seed",
        b'{"prompt": "a"}\n' * 2_500 + b'{"prompt": "a", "seed": -1}',
    ),
    file(
        "long line at the end of many",
        "line 1001|1000000 bytes",
        b"a red circle\n" * 1_000 + b"a" * 1_000_001,
        filename="rows.txt",
        status=413,
        code="too_large",
    ),
    file(
        "half a pair deep in a column",
        "line 1|meta|surrogate",
        b'{"prompt": "a", "meta": {"a": ["\\ud800"]}}',
        code="bad_text",
    ),
    file(
        "half a pair as a key",
        "line 1|meta|surrogate",
        b'{"prompt": "a", "meta": {"\\ud800": 1}}',
        code="bad_text",
    ),
    file(
        "infinity deep in a column",
        "line 1|meta|finite",
        b'{"prompt": "a", "meta": [{"a": 1e999}]}',
    ),
    file("parquet", "rows.parquet|cannot be read", b"PAR1", filename="rows.parquet"),
    file("unknown kind", "prompts|.txt|.jsonl|.csv", b"a", filename="rows.xls"),
    file("path as a name", "no prompt", b"", filename="../../etc/passwd.txt", code="empty"),
    Case("no file", 422, "invalid_input", "prompts|missing", send={"files": {"job": (None, "{}")}}),
    Case(
        "job is a file",
        400,
        "bad_form",
        "Too many files",
        send={"files": {"job": ("job.json", "{}"), "prompts": ("a.txt", b"a")}},
    ),
    Case(
        "job part is broken",
        400,
        "bad_json",
        "job",
        send={"files": {"job": (None, "{"), "prompts": ("a.txt", b"a")}},
    ),
]
