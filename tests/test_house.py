"""The house rules that a machine can keep: floors, circles, light imports, small rooms."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("jobs", "workers", "scheduler", "fewstep")
#: No room may outgrow this many lines, and no function this many.
MAX_FILE, MAX_FUNCTION = 300, 60
REFUSED = {"utils", "common", "helpers", "types", "core", "manager", "misc"}


def rooms() -> list[Path]:
    return sorted(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))


def test_the_distribution_owns_its_names() -> None:
    owners = importlib.metadata.packages_distributions()
    for floor in FLOORS:
        assert set(owners[floor]) == {"fewstep"}


def test_imports_run_downhill() -> None:
    """import-linter's contracts (pyproject.toml): layers, no torch below, no Ray in jobs."""
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def imports_of(file: Path) -> set[str]:
    """Our own modules that `file` imports when it is loaded."""
    found = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in FLOORS}


def test_no_circles() -> None:
    def name_of(file: Path) -> str:
        parts = file.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    graph = {name_of(file): imports_of(file) for file in rooms()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"circle: {' -> '.join((*way, module))}"
        if module in done or module not in graph:
            return
        for target in graph[module]:
            visit(target, (*way, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    "module", ["jobs.shard_queue", "jobs.api.app", "scheduler.loop", "fewstep"]
)
def test_light_imports(module: str) -> None:
    """Importing diffusers costs seconds: what need not know it must not."""
    code = f"import sys, {module}; print(*sorted({{'torch', 'diffusers'}} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == ""


def test_nothing_hides_under_type_checking() -> None:
    for file in rooms():
        assert "TYPE_CHECKING" not in file.read_text("utf-8"), file


def test_rooms_are_small_and_say_what_they_are() -> None:
    for file in rooms():
        text = file.read_text("utf-8")
        tree = ast.parse(text)
        assert len(text.splitlines()) <= MAX_FILE, file
        assert ast.get_docstring(tree), f"{file} opens without a sentence"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= MAX_FUNCTION, f"{file}: {node.name} has {length} lines"


def test_names() -> None:
    for file in rooms():
        name = file.stem.strip("_")
        assert name not in REFUSED, file
        assert name in ("init", "main") or name not in sys.stdlib_module_names, (
            f"{file} is named like a module of the standard library"
        )
