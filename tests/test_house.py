"""The house: what the top level holds, which room may import which, what stays light, and that docs/architecture.md names every
file.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from softlabels.recipes import tokenizer
from softlabels.recipes.tokenizer_config import LEAST_TOKENS
from softlabels.student import export
from softlabels.student.loss_spec import LOSS_NAMES
from softlabels.student.losses import LOSSES
from softlabels_stages.__main__ import main
from softlabels_stages.arguments import FORMATS
from softlabels_stages.commands import COMMANDS

ROOT = Path(__file__).parent.parent
ROOMS = (
    "errors", "lazy", "names", "objects", "system", "labels", "checks", "store", "transfer", "stream", "models",
    "foreign", "teacher", "student", "report", "pages", "jobs", "recipes",
)  # fmt: skip
FORBIDDEN = {
    ("stream", "teacher"),
    ("student", "teacher"),
    ("report", "teacher"),
    ("report", "student"),
    ("pages", "teacher"),
}
HOMES = ("pipeline/softlabels", "stages/softlabels_stages")
ORDERED = {"pyproject.toml", "pipeline", "stages", "tests", "data", "Makefile", "README.md"}
BESIDE = {"docs", "benchmarks", "examples", ".ci", "constraints.txt", "LICENSE"}
FILES = sorted(path.relative_to(ROOT) for home in HOMES for path in (ROOT / home).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Full names of the modules that a module imports, at its top or anywhere inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def offence(room: str, name: str) -> str | None:
    """What is wrong with room `room` importing the module `name`, if anything."""
    top, _, rest = name.partition(".")
    other = rest.partition(".")[0]
    if top == "softlabels_stages":
        return "the library imports a stage"
    if top == "softlabels" and other in ROOMS:
        if (room, other) in FORBIDDEN:
            return f"{room} must not import {other}"
        if ROOMS.index(other) > ROOMS.index(room):
            return f"{room} stands above {other}"
    return None


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "pipeline"], ids=str)
def test_imports_point_one_way(path: Path) -> None:
    room = path.parts[2].removesuffix(".py")
    if room == "__init__":
        return  # the package hands names of every room on, lazily; the fresh interpreters below watch it
    package = ".".join(path.parts[1:-1])
    names = imported(parsed(path), package)
    assert [f"{name}: {why}" for name in names if (why := offence(room, name))] == []


def test_the_direction_test_can_fail() -> None:
    source = (
        "from ..teacher import runner\ndef f():\n    import softlabels.report.table\nfrom softlabels import store\n"
    )
    names = list(imported(ast.parse(source), "softlabels.student"))
    assert [name for name in names if offence("student", name)] == [
        "softlabels.teacher", "softlabels.teacher.runner", "softlabels.report.table",
    ]  # fmt: skip


# What the store may not know: torch, and that anything lies on a disk. `LocalFolder` does, behind softlabels.system.files.
DISK = {"torch", "os", "pathlib", "fcntl", "shutil", "io", "tempfile", "mmap", "stat", "glob"} | {
    f"softlabels.system.{name}" for name in ("local", "handles", "presence", "durable")
}
STORE = [path for path in FILES if path.parts[2] == "store"]


def disk(tree: ast.Module) -> list[str]:
    """What of a disk a module imports or opens, or of torch."""
    modules = [name for name in imported(tree, "softlabels.store") if name in DISK or name.partition(".")[0] in DISK]
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return modules + [call.id for call in calls if isinstance(call, ast.Name) and call.id in ("open", "Path")]


@pytest.mark.parametrize("path", STORE, ids=str)
def test_the_store_knows_no_disk(path: Path) -> None:
    assert disk(parsed(path)) == []


def test_the_test_of_disks_can_fail() -> None:
    source = "import os.path\ndef f():\n    with open('x') as file:\n        from pathlib import Path\n"
    assert disk(ast.parse(source)) == ["os.path", "pathlib", "pathlib.Path", "open"]
    assert disk(ast.parse("from softlabels.system.files import Folder\nfolder.open('x')\nimport ostrich\n")) == []


def circle(files: dict[str, ast.Module]) -> list[str]:
    """Modules of one room that import each other in a circle, by the code of each; none where there is no circle. What is
    imported inside a function or for types only counts too.
    """
    imports = {name: {*imported(tree, name.rpartition(".")[0])} - {name} for name, tree in files.items()}
    try:
        TopologicalSorter({name: found & files.keys() for name, found in imports.items()}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it names them as imported, importer, ...
    return []


@pytest.mark.parametrize("room", sorted({path.parent for path in FILES}), ids=str)
def test_no_circles_inside_a_room(room: Path) -> None:
    names = {path: ".".join(path.with_suffix("").parts[1:]) for path in FILES if path.parent == room}
    found = circle({name.removesuffix(".__init__"): parsed(path) for path, name in names.items()})
    assert found == [], " imports ".join(found)


def test_the_test_of_circles_can_fail() -> None:
    def found(**changed: str) -> list[str]:
        files = {
            "room": "from room import a\n",
            "room.a": "import os\ndef f():\n    from room.b import x\n",
            "room.b": "if TYPE_CHECKING:\n    from room import c\n",
            "room.c": "from room.d import y\n",
            "room.d": "",
        }
        files |= {f"room.{name}": text for name, text in changed.items()}
        return circle({name: ast.parse(text) for name, text in files.items()})

    assert found() == ["room", "room.a", "room.b", "room"]
    assert {*found(b="from room.c import z\n", d="import room.a\n")} == {"room.a", "room.b", "room.c", "room.d"}
    assert found(b="from room.c import z\n") == []


@pytest.mark.parametrize(
    ("absent", "modules"),
    {
        "torch": [
            "softlabels",
            "softlabels.labels",
            "softlabels.checks.order",
            "softlabels.checks.contradictions",
            "softlabels.store",
            "softlabels.jobs.write_store",
            "softlabels.student.config",
            "softlabels.student.loss_spec",
            "softlabels_stages.__main__",
            "softlabels_stages.info",
        ],
        "softlabels.teacher": [
            "softlabels_stages.verify",
            "softlabels.stream",
            "softlabels.stream.loader",
            "softlabels.student",
            "softlabels.student.trainer",
            "softlabels_stages.train_student",
            "softlabels_stages.evaluate",
        ],
    }.items(),
)
def test_what_modules_leave_alone(absent: str, modules: list[str]) -> None:
    code = "".join(f"import {name}\nassert {absent!r} not in sys.modules, {name!r}\n" for name in modules)
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


KINDS = {"TopkFields"} | {
    kind + of for kind in ("Dense", "Topk", "Sigmoid", "Values") for of in ("Encoding", "Members")
}


def asks_kind(tree: ast.Module) -> list[int]:
    """The lines that ask which kind an encoding, or what is decoded of it, is."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("isinstance", "issubclass", "type")
        and KINDS & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    ]


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[2] != "labels"], ids=str)
def test_only_labels_know_which_kind_an_encoding_is(path: Path) -> None:
    assert asks_kind(parsed(path)) == []


def test_the_test_of_kinds_can_fail() -> None:
    source = "a = isinstance(x, DenseEncoding)\nb = isinstance(x.members, (int, TopkMembers))\nc = TopkEncoding(k=1)\n"
    assert asks_kind(ast.parse(source)) == [1, 2]


HELP = """
import sys
from softlabels_stages.__main__ import main
from softlabels_stages.commands import COMMANDS
for stage in COMMANDS:
    assert main([stage, "--help"]) == 0
heavy = {"torch", "datasets", "zarr", "transformers", "matplotlib", "tensorboard", "pandas", "sklearn"}
print(sorted((heavy | {"pyarrow"}) & set(sys.modules)))
assert main(["info", "tests/store/golden/v2-topk-zarr"]) == 0
print(sorted(heavy & set(sys.modules)))
"""


def test_help_and_info_import_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == ["[]", "[]"]


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_is_that_of_the_stage_itself(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([stage, "--help"]) == 0
    said = capsys.readouterr().out
    with pytest.raises(SystemExit):
        importlib.import_module(f"softlabels_stages.{stage.replace('-', '_')}").main(["--help"])
    assert capsys.readouterr().out == said
    # Options of which nothing is said but what goes without saying: how to give an entry, that it is required, its default.
    assert re.findall(r"^  (--.+)\n(?=  --|\n|      \((?:one entry|required|default))", f"{said}\n", re.MULTILINE) == []


def test_the_names_that_light_modules_repeat() -> None:
    assert tuple(LOSSES) == tuple(name for names in LOSS_NAMES.values() for name in names)
    assert {*FORMATS} == {*export.FILES, "hf"}
    assert {"wordpiece": len(tokenizer.SPECIAL) + 1, "bpe": 257} == LEAST_TOKENS


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_one_room(path: Path) -> None:
    tree = parsed(path)
    assert (ROOT / path).read_text().count("\n") <= 400
    assert ast.get_docstring(tree), "a module says what it is"
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60] == []


def tree_of(page: str) -> set[str]:
    """Paths of the Python files that a page's file tree promises: lines `  name  promise` under lines `folder/`."""
    block = next(
        (b for b in re.findall(r"```[a-z]*\n(.*?)```", page, re.DOTALL) if re.search(r"^pipeline/", b, re.M)), ""
    )
    found, folders = set(), []
    for line in block.splitlines():
        match = re.match(r"( *)([\w./]+)(?:\s|$)", line)
        if match is None:
            continue
        depth = len(match[1])
        folders = [(indent, name) for indent, name in folders if indent < depth]
        path = "".join(name for _, name in folders) + match[2]
        if match[2].endswith("/"):
            folders.append((depth, match[2]))
        elif match[2].endswith(".py"):
            found.add(path)
    return found


def test_the_tree_promises_what_is_there() -> None:
    files = {str(path) for path in FILES if path.name != "__init__.py"}
    assert tree_of((ROOT / "docs" / "architecture.md").read_text()) == files


def test_the_top_level_stays_as_ordered() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: what is committed cannot be told from what lies around")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {name.partition("/")[0] for name in listed.splitlines()}
    assert ORDERED - top == set()
    assert {name for name in top - ORDERED - BESIDE if not name.startswith(".git")} == set()
