"""What the code must not contain: pickles, evaluated text, shells, unpacked archives, secrets."""

import ast
from pathlib import Path

import pytest
from pydantic import SecretStr

from fewstep.components import Place
from fewstep.stack_plan import plan_stack
from jobs.redis_client import control_client
from jobs.results import ResultFile
from jobs.store import Store
from tests.s3_servers import settings_for

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("jobs", "workers", "scheduler", "fewstep", "benchmarks", "examples")

#: Modules that run what they read.
MODULES = frozenset("pickle marshal shelve dill cloudpickle joblib yaml code codeop".split())
#: Calls: code from text, shells, pickles under other names.
CALLS = frozenset(
    """eval exec compile __import__ os.system os.popen torch.load numpy.load np.load
    subprocess.getoutput subprocess.getstatusoutput tempfile.mktemp""".split()
)
#: Arguments that open a door, whoever is called.
ARGUMENTS = {
    "shell": True,
    "trust_remote_code": True,
    "allow_pickle": True,
    "verify": False,
    "weights_only": False,
    "use_safetensors": False,
}
UNPACKING = frozenset({"extract", "extractall", "unpack_archive"})


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a call's function, as far as it is made of names."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def faults(text: str) -> set[str]:
    """What of the above a module holds."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.add(str(node.module))
        elif isinstance(node, ast.Call):
            found |= faults_of_call(node)
    return found


def faults_of_call(call: ast.Call) -> set[str]:
    name = name_of(call.func)
    given = {
        one.arg: one.value.value for one in call.keywords if isinstance(one.value, ast.Constant)
    }
    found = {
        f"{arg}={value}"
        for arg, value in given.items()
        if arg in ARGUMENTS and ARGUMENTS[arg] is value
    }
    # Our own training reads its own checkpoints: tensors alone.
    if name == "torch.load" and given.get("weights_only") is True:
        return found
    return found | ({name} if name in CALLS else set())


def unpacking(text: str) -> set[str]:
    """Methods called that write an archive's members where the archive says."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return {name_of(call.func).rpartition(".")[2] for call in calls} & UNPACKING


def rooms() -> list[Path]:
    return sorted(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))


def test_only_json_goes_between_processes_and_nothing_is_evaluated() -> None:
    found = {str(file.relative_to(ROOT)): faults(file.read_text("utf-8")) for file in rooms()}
    assert {file: names for file, names in found.items() if names} == {}


def test_no_archive_is_ever_unpacked() -> None:
    """Members are read as streams: a name in an archive never becomes a path."""
    assert [file for file in rooms() if unpacking(file.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import pickle", "pickle"),
        ("from yaml import load", "yaml"),
        ("eval('1')", "eval"),
        ("import os\nos.system('ls')", "os.system"),
        ("subprocess.run('ls', shell=True)", "shell=True"),
        ("torch.load('a')", "torch.load"),
        ("torch.load('a', weights_only=flag)", "torch.load"),
        ("from_pretrained('a', trust_remote_code=True)", "trust_remote_code=True"),
        ("httpx.get('a', verify=False)", "verify=False"),
    ],
)
def test_the_search_finds_them(text: str, fault: str) -> None:
    assert faults(text) == {fault}
    assert unpacking("tar.extractall('/')") == {"extractall"}


CANARY = "canary0123456789abcdef"


def test_secrets_do_not_show_in_repr(moto_url: str, tmp_path: Path) -> None:
    settings = settings_for(moto_url).model_copy(
        update={
            "home": tmp_path,
            "redis_url": SecretStr(f"redis://:{CANARY}@127.0.0.1:6379/0"),
            "s3_secret_key": SecretStr(CANARY),
        }
    )
    state = plan_stack(tmp_path, settings, 1, private=True, parts=("redis", "s3", "ray"))
    assert state.s3_secret_key == CANARY
    store = Store.connect(settings, create_bucket=True)
    link = store.presign("a")
    shown = [
        repr(value)
        for value in (
            settings,
            state.model_copy(update={"redis_url": CANARY}),
            Place(tmp_path, state, settings, {"FEWSTEP_S3_SECRET_KEY": CANARY}),
            control_client(settings.redis_url.get_secret_value()),
            store,
            ResultFile(name="a", key="a", bytes=1, sha256="", link=link),
        )
    ]
    store.close()
    assert "Signature=" in link
    assert not [text for text in shown if CANARY in text or "Signature=" in text]
