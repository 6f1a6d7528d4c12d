"""Templates: expansion is total, the same for ever, and knows its own inverse."""

import time
import tracemalloc
from collections import Counter
from itertools import combinations
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidInput, TooLarge
from jobs.rows import Row
from jobs.templates.balance import balanced_values
from jobs.templates.expansion import Expansion, Mode, TemplateRequest
from jobs.templates.row_templates import expanded
from jobs.templates.template import Template

LISTS = {"color": ("red", "{dark|light} blue"), "shape": ("circle", "3::square", "star")}
TEXT = "a {big|2::small |} {{color}} {{shape}} on __color__, {{color}} again"


def template(text: str = TEXT, mode: Mode = "combinatorial", **more: object) -> Template:
    return Template.of(TemplateRequest(template=text, mode=mode, **{"lists": LISTS} | more))


def prompts(one: Template) -> list[str]:
    return [row.prompt for row in one.prompts.rows(0, one.prompts.count)]


# ---- the grammar ----

MEANINGS = {
    "a {red|blue} circle": ["a red circle", "a blue circle"],
    "{a|{b|c} d}": ["a", "b d", "c d"],
    "a {big |}circle": ["a big circle", "a circle"],
    "{1::a|0.5::b}": ["a", "b"],
    r"\{a\|b\} \\ \_\_color\_\_ \n": [r"{a|b} \ __color__ \n"],
    "a | b": ["a | b"],
    "{{ shape }} and {{shape}}": ["circle and circle", "square and square", "star and star"],
    "x __nested__": ["x red", "x dark blue", "x light blue"],
    "{2:30|at 5::1}": ["2:30", "at 5::1"],
    "snake_case _ __ a__b": ["snake_case _ __ a__b"],
}


@pytest.mark.parametrize(("text", "meaning"), MEANINGS.items(), ids=MEANINGS)
def test_the_grammar(text: str, meaning: list[str]) -> None:
    assert prompts(template(text, lists=LISTS | {"nested": ("__color__",)})) == meaning


WRONG = {
    "a {red|blue": ("character 3", "never closed"),
    "a } b": ("character 3", "closes nothing"),
    "a {red|red}": ("template", "twice"),
    "a {red|2::red}": ("template", "twice"),
    "a {0::red|blue}": ("character 4", "weight of 0"),
    "a __hue__": ("template", "known: a, b, color, empty"),
    "{{hue}}": ("template", "known: a, b, color, empty"),
    "__a__": ("lists.a", "a -> b -> a"),
    "{a|}": ("template", "blank"),
    "{{empty}}": ("template", "blank"),
    "a\x00": ("template", "NUL"),
    "{" * 30 + "a" + "}" * 30: ("template", "deep"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_wrong_is_named(text: str, says: tuple[str, str]) -> None:
    lists = {"color": ("red",), "a": ("__b__",), "b": ("x __a__",), "empty": (" ", "a")}
    with pytest.raises(InvalidInput) as refused:
        template(text, lists=lists)
    assert all(part in str(refused.value) for part in says)


def test_the_rows_name_what_was_chosen() -> None:
    found = template()
    assert found.prompts.columns == {
        "color": "string",
        "shape": "string",
        "choice_1": "string",
        "color_2": "string",
        "combination": "int",
    }
    assert found.prompts.total == 3 * 3 * 3 * 3
    assert found.prompts.row(80) == Row(
        prompt="a light blue star on light blue, light blue again",
        extra={
            "color": "light blue",
            "shape": "star",
            "choice_1": "",
            "color_2": "light blue",
            "combination": 80,
        },
    )


# ---- the same for ever ----

#: A change here changes the prompts of jobs that are half rendered.
GOLDEN: dict[Mode, list[int]] = {
    "combinatorial": [0, 1, 2, 3, 4, 5],
    "sampled": [69, 8, 10, 9, 66, 47],
    "balanced": [12, 37, 3, 71, 48, 10],
}


@pytest.mark.parametrize("mode", GOLDEN)
def test_the_rows_are_the_same_in_every_version(mode: Mode) -> None:
    found = template(mode=mode, count=6, seed=7).prompts
    assert [row.extra["combination"] for row in found.rows(0, 6)] == GOLDEN[mode]


# ---- properties ----

WORD = st.text(st.sampled_from("abc _:0.5|{}\\"), max_size=6)


def escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "{|}_:\\" else letter for letter in text)


def phrases(depth: int) -> st.SearchStrategy[str]:
    """Valid template texts with nested choices, lists and variables."""
    leaf = WORD.map(escaped) | st.sampled_from(["__color__", "{{shape}}", "{{ color }}"])
    if not depth:
        return leaf
    option = st.tuples(st.sampled_from(["", "2::", "0.5::"]), phrases(depth - 1)).map("".join)
    choice = st.lists(option, min_size=1, max_size=3).map(
        lambda some: "{x" + "|x".join(f"{n}{one}" for n, one in enumerate(some)) + "}"
    )
    return st.lists(leaf | choice, max_size=3).map("".join)


TEMPLATES = phrases(2).map(lambda text: f"a{text}")


@settings(deadline=None, max_examples=150)
@given(TEMPLATES, st.sampled_from(["combinatorial", "sampled", "balanced"]), st.data())
def test_every_row_has_a_prompt_and_a_combination(
    text: str, mode: Mode, data: st.DataObject
) -> None:
    count = None if mode == "combinatorial" else 10**11
    found = template(text, mode, count=count).prompts
    number = data.draw(st.integers(0, found.count - 1))
    row = found.row(number)
    assert row == found.row(number)
    assert row.prompt.strip() == row.prompt != ""
    assert set(row.extra) == set(found.columns)
    path = found.path(number)
    assert found.path_at(found.combination(path)) == path
    assert row.extra["combination"] == found.combination(path)


@settings(deadline=None, max_examples=100)
@given(TEMPLATES)
def test_combinations_and_paths_are_one_to_one(text: str) -> None:
    found = template(text).prompts
    some = range(min(found.total, 300))
    paths = [found.path_at(number) for number in some]
    assert len(set(paths)) == len(some)
    assert [found.combination(path) for path in paths] == list(some)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple), st.integers(1, 400))
def test_balanced_values_come_evenly(sizes: tuple[int, ...], rows: int) -> None:
    found = [tuple(balanced_values(sizes, row)) for row in range(rows)]
    for place, size in enumerate(sizes):
        counts = Counter(one[place] for one in found)
        assert all(abs(counts[value] - rows / size) < 1 for value in range(size))
    if rows <= prod(sizes):
        assert len(set(found)) == rows


PAIRS = [(6, 4), (6, 6), (12, 10), (3, 4, 5), (7, 2, 9, 5), (3, 3, 3), (5, 5, 5, 5, 5), (2, 2)]


@pytest.mark.parametrize("sizes", PAIRS, ids=str)
def test_balanced_pairs_come_evenly_where_that_is_promised(sizes: tuple[int, ...]) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    for row in range(2 * max(one * other for one, other in combinations(sizes, 2)) + 7):
        values = balanced_values(sizes, row)
        for one, other in combinations(range(len(sizes)), 2):
            counts[one, other, values[one], values[other]] += 1
        for one, other in combinations(range(len(sizes)), 2):
            fair = (row + 1) / (sizes[one] * sizes[other])
            for value in range(sizes[one]):
                for second in range(sizes[other]):
                    assert abs(counts[one, other, value, second] - fair) <= 1


def test_balanced_pairs_are_exact_when_every_combination_was_there() -> None:
    found = [balanced_values((8, 5, 2, 4), row) for row in range(8 * 5 * 2 * 4)]
    for one, other in combinations(range(4), 2):
        counts = Counter((values[one], values[other]) for values in found)
        assert len(set(counts.values())) == 1


def test_weights_hold_in_balanced_and_in_sampled_rows() -> None:
    balanced = template("a {a|3::b} {x|y}", "balanced", count=80).prompts
    counts = Counter(row.extra["choice_1"] for row in balanced.rows(0, 80))
    assert counts == {"a": 20, "b": 60}
    drawn = template("a {a|3::b} {x|y}", "sampled", count=4_000).prompts
    counts = Counter(row.extra["choice_1"] for row in drawn.rows(0, 4_000))
    assert 2_850 < counts["b"] < 3_150


def test_a_nested_choice_is_balanced_within_its_option() -> None:
    found = template("a {x|2::{p|q|r}}", "balanced", count=90).prompts
    counts = Counter(row.extra["choice_1"] for row in found.rows(0, 90))
    assert counts == {"x": 30, "p": 20, "q": 20, "r": 20}


# ---- size ----


def test_a_trillion_combinations_cost_nothing() -> None:
    lists = {f"l{n}": tuple(f"v{n}x{m}" for m in range(1_000)) for n in range(4)}
    text = "a {{l0}} {{l1}} {{l2}} {{l3}}"
    tracemalloc.start()
    began = time.process_time()
    found = template(text, lists=lists, count=10**11).prompts
    assert found.total == 10**12
    assert found.row(10**11 - 1).prompt == "a v0x99 v1x999 v2x999 v3x999"
    spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert spent < 30


BOMBS = {
    "depth": ({"a": ("x",)}, "{" * 50_000),
    "doubling": (
        {f"l{n}": (f"__l{n + 1}____l{n + 1}__",) for n in range(18)} | {"l18": ("x|",)},
        "a __l0__",
    ),
    "empty doubling": (
        {f"l{n}": (f"__l{n + 1}____l{n + 1}__",) for n in range(18)} | {"l18": ("",)},
        "a __l0__",
    ),
    "long chain": ({f"l{n}": (f"__l{n + 1}__",) for n in range(100)} | {"l100": ("x",)}, "__l0__"),
    "long texts": ({"a": ("x" * 8_000,)}, "__a__" * 100),
    "many choices": ({"a": ("x",)}, "a" + "{b|c}" * 100),
    "many values": ({"a": tuple(map(str, range(100_001)))}, "__a__"),
    "big numbers": (
        {f"l{n}": tuple(map(str, range(99))) for n in range(60)},
        "".join(f"__l{n}__" for n in range(60)),
    ),
    "a long text": ({"a": ("x",)}, "x" * 100_001),
    "fine weights": ({"a": ("x",)}, "{999999.9999::a|b}"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_templates_are_refused_in_bounded_memory(name: str) -> None:
    lists, text = BOMBS[name]
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        template(text, lists=lists)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64_000_000


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("{}|_:2.\\abc \x00"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = template(f"a{text}", count=1).prompts
    except InvalidInput:
        return
    assert found.row(0).prompt


# ---- rows that are templates ----


def test_a_rows_own_columns_are_its_variables() -> None:
    rows = [
        Row(prompt="a {{color}} {{shape}}", extra={"color": "{x|y} pink", "mine": 1}, seed=3),
        Row(prompt="plain"),
    ]
    found = list(expanded(rows, Expansion(lists=LISTS)))
    assert [row.prompt for row in found] == [
        "a {x|y} pink circle",
        "a {x|y} pink square",
        "a {x|y} pink star",
        "plain",
    ]
    assert found[1].seed == 3
    assert found[1].extra == {
        "color": "{x|y} pink",
        "mine": 1,
        "shape": "square",
        "combination": 1,
    }


def test_rows_that_become_too_many_are_named() -> None:
    rows = [Row(prompt="a"), Row(prompt="a " + "{b|c|d|e|f|g|h|i|j|k}" * 8)]
    with pytest.raises(InvalidInput, match="row 2: more than 10000000 rows"):
        list(expanded(rows, Expansion()))


def test_many_lists_of_one_value_are_refused_before_they_take_memory() -> None:
    """Each list shows the next one: their columns would be as many as there are lists."""
    lists = {f"a{n}": (f"{{{{a{n + 1}}}}}",) for n in range(15)} | {"a15": ("x",)}
    assert Template.of(TemplateRequest(template="{{a0}}", lists=lists)).prompts.row(0).prompt == "x"
    wide = {f"b{n}": ("x",) for n in range(64)}
    text = "".join(f"{{{{b{n}}}}}" for n in range(64))
    with pytest.raises(TooLarge, match="it shows more than 63 variables"):
        Template.of(TemplateRequest(template=text, lists=wide))
    with pytest.raises(TooLarge, match="it shows more than 63 variables"):
        Template.of(TemplateRequest(template="__all__", lists=wide | {"all": (text,)}))
    # The same variable at many places is read once.
    many = TemplateRequest(template="{{b0}}" * 4_000, lists=wide)
    assert len({id(part) for part in Template.of(many).prompts._prompt.parts}) == 1
