"""Arguments of a command: recipe, then flags; and one line for everything that is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from softlabels.errors import ConfigError
from softlabels.models import ModelConfig
from softlabels.objects import ObjectSpec, plain
from softlabels.student.sweep import StudentTraining
from softlabels.transfer import TransferSetConfig
from softlabels_stages.arguments import Evaluate, TrainStudent
from softlabels_stages.correct import Correct
from softlabels_stages.export import Export
from softlabels_stages.help import field_help
from softlabels_stages.recipe import OWN_STORE, built_in, load, parse, store_flag
from softlabels_stages.schema import typed
from softlabels_stages.teacher_arguments import TeacherLogits
from softlabels_stages.train_teacher import TrainTeacher
from softlabels_stages.verify import Verify


@dataclass(frozen=True)
class Data:
    """Where rows come from."""

    factory: ObjectSpec | None = None
    inputs: tuple[str, ...] = ("image",)
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train"})


@dataclass(frozen=True)
class Training:
    """How.

    Attributes:
        temperature: T of the soft term,
            which is positive.
        optimizer: what steps.
    """

    optimizer: ObjectSpec = field(default_factory=lambda: ObjectSpec("torch.optim.AdamW", {"lr": 1e-3, "eps": 1.0}))
    temperature: float = 4.0
    alpha: float | None = None
    seeds: tuple[int, ...] = (0, 1)
    baseline: bool = True
    loss: Literal["forward_kl", "soft_ce"] = "forward_kl"


@dataclass(frozen=True)
class Teacher:
    """An ensemble."""

    members: tuple[ObjectSpec, ...] = ()


@dataclass(frozen=True)
class Command:
    """Everything at once."""

    student: ObjectSpec
    training: Training = field(default_factory=Training)
    name: str = ""
    teacher: Teacher | None = None
    transfer_set: Data | None = None
    store: str = "somewhere"  # the folder that is read
    json: bool = False  # print JSON


@dataclass(frozen=True)
class Optional:
    """A section that may be left out."""

    training: Training | None = None


RECIPE = {
    "name": "mine",
    "student": {"class_path": "a.B", "init_args": {"hidden": [64, 64], "rate": 0.5}},
    "training": {"temperature": 2, "seeds": [3], "optimizer": {"class_path": "torch.optim.SGD"}},
    "teacher": {"members": [{"class_path": "c.D"}, {"class_path": "e.F", "init_args": {"n": 1}}]},
    "labels": {"anything": ["that", "this", "command"], "does": "not read"},
}


def run(tmp_path: Path, *words: str, recipe: object = RECIPE) -> Command:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe))
    flags = [f"--config={file}", *words]
    return parse(flags, Command, stage="try", doc="Try it.", flat=("training",), positional=("store",))


def test_a_recipe_fills_the_dataclass(tmp_path: Path) -> None:
    args = run(tmp_path)
    assert args.student == ObjectSpec("a.B", {"hidden": [64, 64], "rate": 0.5})
    assert args.training == Training(optimizer=ObjectSpec("torch.optim.SGD"), temperature=2.0, seeds=(3,))
    assert args.teacher == Teacher((ObjectSpec("c.D"), ObjectSpec("e.F", {"n": 1})))
    assert (args.name, args.transfer_set, args.store, args.json) == ("mine", None, "somewhere", False)


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--temperature=8"], "training.temperature", 8.0),
        (["--temperature", "8"], "training.temperature", 8.0),
        (["--training.temperature=1e-1"], "training.temperature", 0.1),
        (["--seeds=1,2,4"], "training.seeds", [1, 2, 4]),
        (["--seeds=[1,2,4]"], "training.seeds", [1, 2, 4]),
        (["--seeds=7"], "training.seeds", [7]),
        (["--baseline=false"], "training.baseline", False),
        (["--alpha=0.9", "--alpha=null"], "training.alpha", None),
        (["--json"], "json", True),
        (["there"], "store", "there"),
        (["--name=2024"], "name", "2024"),
        (["--student.init_args.hidden=[32]"], "student.init_args", {"hidden": [32], "rate": 0.5}),
        (["--student.init_args.inner.lr=1e-3"], "student.init_args.inner", {"lr": 0.001}),
        (["--student.class_path=x.Y"], "student", {"class_path": "x.Y", "init_args": {}}),
        (
            ["--student.init_args.k=1", "--student.class_path=x.Y"],
            "student",
            {"class_path": "x.Y", "init_args": {"k": 1}},
        ),
        (["--transfer_set.splits.test=held_out"], "transfer_set.splits", {"train": "train", "test": "held_out"}),
        (["--transfer_set.inputs=left,right"], "transfer_set.inputs", ["left", "right"]),
        (["--transfer_set.factory.class_path=f.g"], "transfer_set.factory", {"class_path": "f.g", "init_args": {}}),
        (["--teacher.members=[{class_path: z}]"], "teacher.members", [{"class_path": "z", "init_args": {}}]),
    ],
)
def test_flags_go_over_the_recipe(tmp_path: Path, words: list[str], path: str, value: object) -> None:
    changed, kept = plain(run(tmp_path, *words)), plain(run(tmp_path))
    found: Any = changed
    for part in path.split("."):
        found = found[part]
    assert found == value
    top = path.split(".")[0]
    assert {k: v for k, v in changed.items() if k != top} == {k: v for k, v in kept.items() if k != top}


def test_a_switch_takes_no_word_from_what_follows(tmp_path: Path) -> None:
    args = run(tmp_path, "--json", "there")
    assert (args.json, args.store) == (True, "there")


def test_a_default_keeps_its_arguments_until_the_class_changes(tmp_path: Path) -> None:
    bare = {"student": {"class_path": "a"}}
    assert run(tmp_path, "--optimizer.init_args.lr=0.1", recipe=bare).training.optimizer.init_args == {
        "lr": 0.1,
        "eps": 1,
    }
    other = run(tmp_path, "--optimizer.class_path=torch.optim.SGD", "--optimizer.init_args.lr=0.1", recipe=bare)
    assert other.training.optimizer == ObjectSpec("torch.optim.SGD", {"lr": 0.1})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temprature=3"], "unknown option --temprature; did you mean --temperature?"),
        (["--student.foo=3"], "unknown option --student.foo; did you mean --student.init_args?"),
        (["--training.optimizer={}"], "unknown option --training.optimizer; did you mean --optimizer.init_args?"),
        (["--temperature=abc"], "command line: training.temperature is 'abc', expected number; the default is 4.0"),
        (["--temperature=null"], "command line: training.temperature is 'null', expected number; the default is 4.0"),
        (
            ["--seeds=1,b"],
            "command line: training.seeds is '[1,b]', expected list of whole numbers; the default is 0,1",
        ),
        (["--loss=mse"], "training.loss is 'mse', expected 'forward_kl' or 'soft_ce'; the default is forward_kl"),
        (["--json=maybe"], "command line: json is 'maybe', expected true or false; the default is false"),
        (["--temperature"], "--temperature has no value; write --temperature=<number>"),
        (["one", "two"], "unexpected argument 'two'; options are written --key=value; see --help"),
        (["--student.init_args=3"], "command line: student.init_args is '3', expected mapping; the default is {}"),
        (
            ["--config=digitz"],
            f"there is no recipe digitz; give a YAML file or a built-in recipe: {', '.join(built_in())}",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message) + "$") as error:
        run(tmp_path, *words)
    assert "\n" not in str(error.value)


def test_a_recipe_without_its_flag_is_told_how_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("student: {class_path: a.B}\n")
    Path("store.yaml").mkdir()
    with pytest.raises(
        ConfigError, match=re.escape("recipe mine.yaml is given without a flag; write --config=mine.yaml")
    ):
        run(tmp_path, "mine.yaml")  # where a store may be named too
    with pytest.raises(ConfigError, match="write --config=ag_news"):
        run(tmp_path, "a-store", "ag_news")
    assert run(tmp_path, "store.yaml").store == "store.yaml"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"studnet": {}}, "unknown section 'studnet' (value {}); did you mean student?"),
        ({"student": {"class": "a"}}, "student: unknown key 'class' (value 'a'); did you mean class_path?"),
        ({"student": "a.B"}, "student is 'a.B', expected a mapping of keys; known keys: class_path, init_args"),
        ({"student": {"init_args": {}}}, "student.class_path is missing; give it: text"),
        ({}, "student is missing; give it: mapping"),
        (RECIPE | {"training": {"temperature": "warm"}}, "training.temperature is 'warm', expected number"),
        (RECIPE | {"training": {"seeds": [0, None]}}, "training.seeds is [0, None], expected list of whole numbers"),
        (RECIPE | {"training": {"temperature": None}}, "training.temperature is None, expected number"),
        (RECIPE | {"name": 2024}, "name is 2024, expected text"),
        (RECIPE | {"teacher": {"members": [{"class_path": "a"}, {}]}}, "teacher.members[1]: class_path is missing"),
        (
            RECIPE | {"teacher": {"members": {"class_path": "a"}}},
            "teacher.members is {'class_path': 'a'}, expected list",
        ),
        ("- a\n- b\n", "holds list, expected sections"),
        ("name: a\nname: b\n", "key 'name' stands twice"),
        ("name: [a\n", "is not a YAML file"),
        ("name: !!python/name:os.system\n", "is not a YAML file"),
    ],
)
def test_a_wrong_recipe_is_one_error(tmp_path: Path, recipe: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        run(tmp_path, recipe=recipe)
    assert str(tmp_path / "recipe.yaml") in str(error.value)


def test_all_wrong_keys_and_types_are_in_one_error(tmp_path: Path) -> None:
    training = {"temperatur": 4, "alpha": "much", "epoch": 3}
    with pytest.raises(ConfigError) as error:
        run(tmp_path, "--baseline=maybe", recipe=RECIPE | {"training": training, "student": {"class": "a.B"}})
    said = str(error.value)
    assert "5 settings are wrong: (1) " in said
    for part in (
        "training: unknown key 'temperatur' (value 4) [did you mean temperature?]",
        "training: unknown key 'epoch' (value 3) [known: optimizer, ",
        "student: unknown key 'class' (value 'a.B') [did you mean class_path?]",
        "training.alpha is 'much', expected number or null [correct it there]",
        "command line: training.baseline is 'maybe', expected true or false [the default is true]",
    ):
        assert part in said
    with pytest.raises(ConfigError, match=r"2 settings are wrong: \(1\) .*'studnet'.*\(2\) .*'trainig'"):
        run(tmp_path, recipe=RECIPE | {"studnet": {}, "trainig": {}})


def test_numbers_with_exponents_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("student: {class_path: a, init_args: {lr: 1e-3, big: 2E+5, word: 1e-3x}}\n")
    assert load(str(file))["student"]["init_args"] == {"lr": 0.001, "big": 2e5, "word": "1e-3x"}


def test_typed_is_the_same_check_for_a_plain_mapping() -> None:
    assert typed(Training, {"temperature": 3, "seeds": [1]}, where="x") == Training(temperature=3.0, seeds=(1,))
    assert typed(Optional, {"training": {}}, where="x") == Optional(Training())  # empty is not left out
    assert typed(Optional, {"training": None}, where="x") == typed(Optional, {}, where="x") == Optional(None)
    with pytest.raises(ConfigError, match=r"x: student\.class_path is missing"):
        typed(Command, {"student": {}}, where="x")
    with pytest.raises(ConfigError, match=r"x: temperature is 'hot', expected number; the default is 4\.0"):
        typed(Training, {"temperature": "hot"}, where="x")


def test_help_is_enough_to_use_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        run(tmp_path, "--help")
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: softlabels try [STORE] [--KEY=VALUE ...]\n\nTry it.\n")
    for line in (
        "  --temperature=<number>\n      T of the soft term, which is positive. (default: 4.0)",
        "  --store=<text>\n      the folder that is read (default: somewhere)",
        "  --json\n      print JSON (default: false)",
        "  --seeds=<list of whole numbers>\n      (default: 0,1)",
        "  --optimizer.class_path=<text>\n      what steps. (default: torch.optim.AdamW)",
        "  --student.class_path=<text>\n      (required)",
        "  --transfer_set.factory.class_path=<text>\n  --",
        "  --config=<text>\n      the recipe: a YAML file, or the name of a built-in one, such as digits; none by default\n",
    ):
        assert line in text


@pytest.mark.parametrize("name", built_in())
def test_built_in_recipes_have_known_sections_only(name: str) -> None:
    assert load(name)["name"] == name.replace("_", "-")


def test_a_default_too_long_for_its_line_keeps_its_help() -> None:
    assert field_help(Verify)["against_teacher"].startswith("a recipe (file or built-in name) whose teacher")


@dataclass(frozen=True)
class WithStore:
    """As commands that read or write a recipe's store."""

    student: ObjectSpec | None = None
    training: Training = field(default_factory=Training)
    store: str = OWN_STORE


def test_without_a_recipe_every_setting_is_at_its_stated_default() -> None:
    """Seen to fail: the built-in digits recipe filled in five seeds and a hard_label_fraction of 0.1."""
    given = parse(
        ["--student.class_path=a.B", "--store=s"], TrainStudent, stage="train-student", doc="", flat=("training",)
    )
    assert given.training == StudentTraining()
    assert (given.student, given.transfer_set, given.teacher) == (ModelConfig("a.B"), None, None)


@pytest.mark.parametrize(
    ("cls", "words", "message"),
    [
        (
            TrainStudent,
            [],
            "stage: student is missing, and no recipe is given; give --config=RECIPE, as --config=digits for the built-in "
            "example, or --student.class_path=...",
        ),
        (
            TeacherLogits,
            ["--store=s"],
            "stage: teacher and transfer_set are missing, and no recipe is given; give --config=",
        ),
        (TrainTeacher, [], "stage: teacher and transfer_set are missing, and no recipe is given; give --config=RECIPE"),
        (
            Evaluate,
            [],
            "stage: no store is named, and no recipe is given; give --config=RECIPE, as --config=digits for",
        ),
        (Export, ["x"], "stage: no store is named, and no recipe is given"),
        (Correct, ["x"], "stage: student is missing, and no recipe is given"),
    ],
)
def test_what_is_needed_and_not_given_is_named(cls: type, words: list[str], message: str) -> None:
    positional = ("from_",) if cls in (Export, Correct) else ()
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(words, cls, stage="stage", doc="", positional=positional)


def test_the_store_is_by_default_that_of_the_recipes_name(tmp_path: Path) -> None:
    for name, text in {"stores/mine": "name: mine\n", "stores/other": "training: {}\n"}.items():
        (tmp_path / "other.yaml").write_text(text)
        assert parse([f"--config={tmp_path}/other.yaml"], WithStore, stage="x", doc="").store == name
        assert parse([f"--config={tmp_path}/other.yaml", "--store=s"], WithStore, stage="x", doc="").store == "s"


def test_stores_are_one_or_several(tmp_path: Path) -> None:
    recipe, student = tmp_path / "mine.yaml", "student: {class_path: softlabels.models.MLP}\n"

    def stores(text: str, *words: str) -> tuple[str, ...]:
        recipe.write_text(student + text)
        found = parse([f"--config={recipe}", *words], TrainStudent, stage="x", doc="", positional=("store",))
        assert parse([f"--config={recipe}", store_flag(found.store)], Evaluate, stage="x", doc="").store == found.store
        return found.store

    assert stores("") == ("stores/mine",)
    assert stores("store: a\n") == ("a",)
    assert stores("store: [a, 'b,c']\n") == ("a", "b,c")
    assert stores("store: [a, b]\n", "--store=c,d") == ("c", "d")
    assert stores("store: [a, b]\n", "c,d", "e") == ("c,d", "e")
    recipe.write_text("store: [a, b]\nrepeated: first\nrename: {x: y}\n" + student)
    source = parse([f"--config={recipe}"], TrainStudent, stage="x", doc="").source
    assert (source.said, source.options) == (["a", "b"], {"rename": {"x": "y"}, "repeated": "first"})
    recipe.write_text("store: [a, b]\nname: other\n")
    assert parse([f"--config={recipe}"], WithStore, stage="x", doc="").store == "stores/other"


@dataclass(frozen=True)
class WithRows:
    transfer_set: TransferSetConfig


@pytest.mark.parametrize(
    ("recipe", "words", "settings"),
    [
        ("", ["--transfer_set.label=tags", "--transfer_set.label_as=set"], {"label": "tags", "label_as": "set"}),
        ("", ["--transfer_set.label=null", "--transfer_set.positions=300"], {"label": None, "positions": 300}),
        (
            "label: {class: cell}, positions: {most: 4}",
            ["--transfer_set.label.box.column=box", "--transfer_set.label.box.as=values", "--transfer_set.positions.length=n"],
            {"label": {"class": "cell", "box": {"column": "box", "as": "values"}}, "positions": {"most": 4, "length": "n"}},
        ),
        (  # a text or number in the place of the mapping
            "label: cell, positions: 3",
            ["--transfer_set.label.a=b", "--transfer_set.positions.most=4"],
            {"label": {"a": "b"}, "positions": {"most": 4}},
        ),
    ],
)  # fmt: skip
def test_labels_and_positions_are_texts_numbers_or_mappings(
    tmp_path: Path, recipe: str, words: list[str], settings: dict[str, Any]
) -> None:
    (tmp_path / "r.yaml").write_text(f"transfer_set: {{source: a, {recipe}}}\n")
    args = parse([f"--config={tmp_path}/r.yaml", *words], WithRows, stage="x", doc="")
    found = {
        name: value for name, value in plain(args.transfer_set).items() if name in ("label", "label_as", "positions")
    }
    assert found == {"label": "label", "label_as": "class", "positions": None, **settings}
    with pytest.raises(ConfigError, match=r"positions is '1\.5', expected whole number or mapping or null"):
        parse([f"--config={tmp_path}/r.yaml", "--transfer_set.positions=1.5"], WithRows, stage="x", doc="")
