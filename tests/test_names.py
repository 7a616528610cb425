"""What ships under a class path, by its short name, its long one, and the one that version 0.1 gave it."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from softlabels import EmbeddedRows, StoreWriter, array_keys, open_store, store_spec
from softlabels.errors import ConfigError
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.splits import Split
from softlabels.models import ModelConfig
from softlabels.names import OF_0_1, SHIPPED, renamed, short
from softlabels.objects import ObjectSpec, canonical, import_object
from softlabels.store.new_spec import prepared_by
from softlabels.teacher.config import MemberConfig
from softlabels_stages.arguments import TrainStudent
from softlabels_stages.recipe import parse

OLD, SHORT, LONG = "pipeline.models.mlp.MLP", "softlabels.models.MLP", "softlabels.models.mlp.MLP"
GOLDEN = Path(__file__).parent / "stages" / "golden_0_1" / "finished" / "expected.json"
NAMES_OF_0_1 = json.loads(GOLDEN.read_text())["names"]  # of its classes and functions, found by its own code


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user's own package `pipeline`, first on Python's path; it holds `models`, empty."""
    package = tmp_path / "pipeline"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    others = forget()
    yield package
    forget()
    sys.modules.update(others)


def forget() -> dict[str, object]:
    """Every module called `pipeline`, which Python then looks for anew."""
    importlib.invalidate_caches()
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "pipeline"}


@pytest.mark.parametrize("name", SHIPPED)
def test_short_and_long_name_one_object(name: str) -> None:
    by_name = []
    moved = SHIPPED[name].startswith("softlabels.recipes.")  # its name is that of the module where it was
    for path in (SHIPPED[name] if moved else name, SHIPPED[name]):
        module, _, attribute = path.rpartition(".")
        by_name.append(getattr(importlib.import_module(module), attribute))  # as Python has it, without our table
    assert by_name[0] is by_name[1] is import_object(name) is import_object(SHIPPED[name])
    assert len(name) <= len(SHIPPED[name])


def test_the_table_holds_everything_that_a_recipe_can_name() -> None:
    assert shipped() == set(SHIPPED.values())


def shipped() -> set[str]:
    """Long names of models, prepare functions, augmentations and what finds boxes, found in the modules."""
    packages = [importlib.import_module(f"softlabels.{room}") for room in ("models", "transfer", "recipes")]
    modules = [entry.name for each in packages for entry in pkgutil.iter_modules(each.__path__, f"{each.__name__}.")]
    found = {}
    for module in modules:
        values = vars(importlib.import_module(module)).items()
        found |= {f"{module}.{name}": value for name, value in values if getattr(value, "__module__", "") == module}
    public = {path: value for path, value in found.items() if not path.rpartition(".")[2].startswith("_")}
    models = {path: value for path, value in public.items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    built_on = {base for value in models.values() for base in value.__mro__[1:]}
    functions = {path: value for path, value in public.items() if inspect.isfunction(value)}
    prepares = {path for path, value in functions.items() if "rows: 'Sequence[Row]'" in str(inspect.signature(value))}
    return (
        {path for path, value in models.items() if value not in built_on}
        - {"softlabels.models.estimator.Estimator"}  # a recipe names what is in it
        | prepares
        | {path for path in functions if path.startswith("softlabels.recipes.augment.")}
        | {path for path, value in functions.items() if str(inspect.signature(value)).startswith("(*, split: 'str', ")}
        | {path for path in functions if path.startswith("softlabels.recipes.detect_boxes.")}
        | {"softlabels.models.narrow.narrowed"}  # what a recipe of pruned students says of them
        | {"softlabels.transfer.sequences.token_rows"}  # what a specification says of rows of tokens; a recipe does not
    )


def test_the_names_of_0_1_are_those_that_it_had() -> None:
    """The other names that it had ended otherwise: nothing a recipe could use is left out."""
    last = {name.rpartition(".")[2] for name in SHIPPED}
    assert [name for name in NAMES_OF_0_1 if name.rpartition(".")[2] in last] == sorted(OF_0_1)
    for old, now in OF_0_1.items():
        assert now in SHIPPED
        assert now.rpartition(".")[2] == old.rpartition(".")[2]


@pytest.mark.parametrize("name", SHIPPED)
def test_whatever_a_recipe_writes_one_name_is_kept(name: str) -> None:
    for given in (name, SHIPPED[name], *(old for old, now in OF_0_1.items() if now == name)):
        assert canonical(given) == name
        assert ObjectSpec(given).class_path == ModelConfig(given).class_path == MemberConfig(given).class_path == name
        assert import_object(given) is import_object(name)


def test_where_0_2_had_what_has_moved_since() -> None:
    assert canonical("softlabels.models.biased.Biased") == "softlabels.models.Biased"
    assert import_object("softlabels.models.biased.Biased").__module__ == "softlabels.recipes.biased"


def test_others_are_left_as_they_are() -> None:
    assert [short(name) for name in ("pipeline.nets.Net", OLD, "torch.nn.Linear")] == [
        "pipeline.nets.Net", OLD, "torch.nn.Linear",
    ]  # fmt: skip
    assert canonical("pipeline.models.mlp.Other") == "pipeline.models.mlp.Other"


def test_another_name_of_a_class_keeps_its_arguments(tmp_path: Path) -> None:
    """A flag that names another class begins with no arguments."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"student: {{class_path: {OLD}, init_args: {{inputs: 4}}}}")
    for given, arguments in ((OLD, 1), (SHORT, 1), (LONG, 1), ("softlabels.models.ConvNet", 0)):
        words = [f"--config={recipe}", f"--student.class_path={given}"]
        assert len(parse(words, TrainStudent, stage="train-student", doc=None).student.init_args) == arguments


# A user's own package `pipeline`


def test_a_package_without_such_an_object_changes_nothing(pipeline: Path) -> None:
    (pipeline / "nets.py").write_text("class Net: pass")
    assert canonical(OLD) == SHORT
    assert canonical("pipeline.nets.Net") == "pipeline.nets.Net"
    assert import_object("pipeline.nets.Net").__module__ == "pipeline.nets"
    assert import_object(OLD) is import_object(SHORT)
    with pytest.raises(ConfigError, match=r"pipeline\.nets\.Nett not found: pipeline\.nets has no 'Nett'"):
        import_object("pipeline.nets.Nett")
    with pytest.raises(ConfigError, match=r"pipeline\.models has no 'other'"):
        import_object("pipeline.models.other.MLP")


def test_a_package_with_such_an_object_wins(pipeline: Path) -> None:
    (pipeline / "models" / "mlp.py").write_text("class MLP: pass")
    assert ModelConfig(OLD).class_path == OLD
    assert import_object(OLD).__module__ == "pipeline.models.mlp"
    assert ModelConfig(SHORT).class_path == SHORT
    assert canonical("pipeline.models.cnn.ConvNet") == "softlabels.models.ConvNet"  # which it has not


def test_a_script_of_that_name_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.py").write_text("raise SystemExit('it trains for a week')")
    monkeypatch.syspath_prepend(tmp_path)
    others = forget()
    try:
        assert [canonical(old) for old in OF_0_1] == [*OF_0_1.values()]
        assert "pipeline" not in sys.modules
    finally:
        sys.modules.update(others)


def test_a_broken_one_says_what_is_wrong_with_it(pipeline: Path) -> None:
    (pipeline / "models" / "mlp.py").write_text("import a_module_that_nobody_has\nclass MLP: pass")
    with pytest.raises(
        ConfigError, match=r"pipeline\.models\.mlp\.MLP cannot be imported: No module named 'a_module_that_nobody_has'"
    ):
        import_object(OLD)


def test_a_store_does_not_name_it(pipeline: Path, tmp_path: Path) -> None:
    (pipeline / "transfer").mkdir()
    (pipeline / "transfer" / "prepare.py").write_text("raise SystemExit('a store ran this')")
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    spec = store_spec(
        teacher="t", name="rows", keys=array_keys(inputs), classes=2, embed=inputs,
        preprocessing=prepared_by("pipeline.transfer.prepare.scale", {"divisor": 2}, inputs),
    )  # fmt: skip
    with StoreWriter(tmp_path / "store", spec) as writer:
        writer.write_logits(0, keys=array_keys(inputs), labels=np.zeros(3, int), logits=inputs[:, None], inputs=inputs)
        writer.seal()
    store = open_store(tmp_path / "store")
    assert Split(store, EmbeddedRows(store)).prepare == ObjectSpec("softlabels.transfer.scale", {"divisor": 2})


# Records of earlier versions


def test_records_of_0_1_are_read_with_todays_names() -> None:
    standing = {"student": {"class_path": OLD, "init_args": {"hidden": [8]}}, "other": ["pipeline.nets.Net", OLD, None]}
    found = renamed(standing)
    assert found == {
        "student": {"class_path": SHORT, "init_args": {"hidden": [8]}},
        "other": ["pipeline.nets.Net", SHORT, None],
    }
    assert standing["student"]["class_path"] == OLD  # type: ignore[index]


def test_a_name_that_is_the_users_own_today_is_not_ours(work: Path) -> None:
    """Two classes are two runs, though 0.1 called one of them as the user calls the other."""
    assert renamed({"a": OLD, "b": "pipeline.models.cnn.ConvNet"}, {"a": [OLD]}) == {
        "a": OLD, "b": "softlabels.models.ConvNet",
    }  # fmt: skip
    ours = RunFolder.open(None, name="run", identity={"student": SHORT}).path
    own = RunFolder.open(None, name="run", identity={"student": OLD}).path
    assert ours != own
    assert RunFolder.place(None, name="run", identity={"student": SHORT}) == ours
    assert RunFolder.place(None, name="run", identity={"student": OLD}) == own


def test_a_run_of_0_1_is_found_among_others(work: Path) -> None:
    for number, text in enumerate(
        ["{", "[]", '{"training": 3}', json.dumps({"student": "pipeline.models.cnn.ConvNet"})]
    ):
        (work / "runs" / f"run-{number}").mkdir(parents=True)
        (work / "runs" / f"run-{number}" / "run.json").write_text(text)
    assert RunFolder.place(None, name="run", identity={"student": SHORT}).name not in {f"run-{n}" for n in range(4)}
    (work / "runs" / "run-3" / "run.json").write_text(json.dumps({"student": OLD}))
    assert RunFolder.place(None, name="run", identity={"student": SHORT}).name == "run-3"
    assert RunFolder.place("elsewhere", name="run", identity={"student": SHORT}) == Path("elsewhere")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
