"""The plan of a comparison: the paper's by default, one's own from TOML, and what is refused."""

from pathlib import Path

import pytest

from jobs.catalog import Catalog
from jobs.comparison import ROWS_MAX, Plan, read_plan
from jobs.errors import InvalidInput

ROOT = Path(__file__).parents[2]


def plan_of(tmp_path: Path, text: str) -> Plan:
    """The plan in a file with this text."""
    path = tmp_path / "plan.toml"
    path.write_text(text, "utf-8")
    return read_plan(path)


@pytest.mark.parametrize("model", ["tiny", "sd15", "sdxl", "ssd-1b"])
def test_the_paper_s_table_is_a_recipe_of_every_model(catalog: Catalog, model: str) -> None:
    rows = read_plan().spread(model)
    recipes = [catalog.resolve(row.recipe) for row in rows]
    assert len(rows) == 1 + 3 * 4 + 4
    assert [(one.sampler, one.steps) for one in recipes if one.accelerator] == [
        ("lcm", 1),
        ("lcm", 2),
        ("lcm", 4),
        ("lcm", 8),
    ]
    asked = {(one.sampler, one.steps, one.guidance) for one in recipes[1:] if not one.accelerator}
    assert asked == {(s, n, 8.0) for s in ("ddim", "dpm", "dpmpp") for n in (4, 8, 25, 50)}


def test_the_example_is_a_plan_for_the_tiny_model(catalog: Catalog) -> None:
    plan = read_plan(ROOT / "examples" / "compare.toml")
    recipes = [catalog.resolve(row.recipe) for row in plan.spread("tiny")]
    assert {tuple(style.weight for style in one.styles) for one in recipes} == {
        (),
        (0.5,),
        (0.8,),
        (1.0,),
    }


def test_a_table_makes_every_combination_and_its_rows_one_group(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "[[rows]]\nname = 'mix'\nsteps = [1, 4]\nstyles = [{}, { outline = 0.8, ink = 1.0 }]\n",
    )
    assert [(row.group, row.name) for row in plan.spread("tiny")] == [
        ("mix", "mix, 1 step"),
        ("mix", "mix, 4 steps"),
        ("mix, outline 0.8, ink 1", "mix, outline 0.8, ink 1, 1 step"),
        ("mix, outline 0.8, ink 1", "mix, outline 0.8, ink 1, 4 steps"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows = 3", "rows: "),
        ("[[rows]]\nstep = [4]", "rows.0.step: "),
        ("[[rows]]\nsampler = ['best']", "rows.0.sampler.0: "),
        ("[[rows]]\nsteps = []", "rows.0.steps: "),
        ("[[rows]]\nsteps = [4]\n[[rows]]\nsteps = [4]", "two rows are called 'own acc"),
        ("reference = 9\n[[rows]]\nsteps = [4]", "reference is 9, but there are 1 rows"),
        (f"[[rows]]\nsteps = {list(range(1, ROWS_MAX + 2))}", f"at most {ROWS_MAX}"),
        ("[[rows]", "it is no TOML"),
        (f"reference = {'9' * 5_000}", "it is no TOML"),
        ("a = " + "[" * 5_000, "it is no TOML"),
        (
            f"[[rows]]\nsteps = {list(range(999))}\nguidance = {[float(n) for n in range(999)]}",
            "998001 rows, at most",
        ),
        ("", "rows: "),
    ],
)
def test_a_plan_that_will_not_do_is_refused_by_file_and_field(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan_of(tmp_path, text)
    assert said in str(refused.value)
    assert refused.value.where == str(tmp_path / "plan.toml")


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.toml.*cannot be read"):
        read_plan(tmp_path / "none.toml")
