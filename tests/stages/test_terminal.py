"""Names that a stranger chose, in a store, a run, a cache and a folder, reach no terminal as something that it obeys."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from softlabels import write_store
from softlabels.errors import ConfigError, SoftLabelsError, one_line, visible
from softlabels_stages.__main__ import main
from softlabels_stages.output import Visible
from tests.stages import toy
from tests.store.test_hostile import seal_again

ODD = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\x08\x7f\nEVIL\rEVIL\x85EVIL\u2028EVIL\x0bEVIL"
IN_A_NAME = ODD + "\udc9b"  # of a file: also a byte that is no UTF-8
RECIPE = "--config=recipe.yaml"
STORE = [
    ["info", "{}"], ["info", "{}", "--json"], ["verify", "{}"], ["repair", "{}"], ["convert", "{}", "copy"],
    ["encode", "{}", "sparse", "--k=2", "--tail=uniform"], ["evaluate", "--store={}", RECIPE],
    ["train-student", "--store={}", RECIPE, "--out=new"],
    ["evaluate", "--store={}", RECIPE, "--split=nosuch"], ["info", "{}", "--split=nosuch"],
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two splits with such names, a run from it, and a recipe."""
    work, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    here, cache = Path.cwd(), os.environ.get("SOFTLABELS_CACHE")
    os.chdir(work)
    try:
        for split, rows in (("train", 40), ("test", 20)):
            inputs = rng.normal(size=(rows, toy.FEATURES)).astype(np.float32)
            write_store(
                f"store/{split}", rng.normal(size=(rows, toy.CLASSES)), inputs=inputs, labels=rng.integers(0, 5, rows)
            )
            seal_again(work / "store" / split, spec=_named)
        toy.write_recipe(Path("recipe.yaml"), training={"epochs": 1, "seeds": [0], "batch_size": 16, "device": "cpu"})
        assert main(["train-student", "--store=store", RECIPE, "--out=run"]) == 0
    finally:
        os.chdir(here)
    assert os.environ.get("SOFTLABELS_CACHE") == cache
    return work


def _named(spec: dict[str, Any]) -> None:
    spec["teacher"]["name"] = spec["transfer_set"]["name"] = spec["teacher"]["precision"] = "T" + ODD
    spec["label_space"]["names"] = [f"{number}{ODD}" for number in range(toy.CLASSES)]


@pytest.fixture
def there(made: Path, work: Path) -> Path:
    shutil.copytree(made, work, dirs_exist_ok=True)
    return work


def said(capsysbinary: pytest.CaptureFixture[bytes], *words: str, codes: tuple[int, ...] = (0, 2, 3)) -> str:
    """What a command writes, all of which is seen as it is."""
    capsysbinary.readouterr()
    code = main(words)
    out, error = capsysbinary.readouterr()
    text = (out + error).decode()
    assert code in codes, (words, code, text)
    assert "Traceback" not in text, text
    assert "mistake of softlabels" not in text, text
    for line in text.split("\n"):
        assert line.isprintable(), (words, line)
        assert not line.lstrip().startswith("EVIL"), (words, line)
    return text


@pytest.mark.parametrize("words", STORE, ids=lambda words: " ".join(words))
def test_names_in_a_store(there: Path, capsysbinary: pytest.CaptureFixture[bytes], words: list[str]) -> None:
    """Seen to fail: `info` and `evaluate` sent what a class is called to the terminal as it is."""
    text = said(capsysbinary, *(word.format("store") for word in words))
    if words == ["info", "{}"]:
        assert r"T\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\x08\x7f EVIL EVIL" in text
    for page in there.glob("new/*.md"):
        assert all(line.isprintable() for line in page.read_text().split("\n")), page


@pytest.mark.parametrize("words", STORE, ids=lambda words: " ".join(words))
def test_names_of_files_and_splits(there: Path, capsysbinary: pytest.CaptureFixture[bytes], words: list[str]) -> None:
    """Seen to fail: `verify` named such a file, and every command such a split."""
    (there / "store" / "train" / IN_A_NAME).touch()
    (there / "store" / IN_A_NAME).touch()
    said(capsysbinary, *(word.format("store") for word in words))
    shutil.copytree(there / "store" / "test", there / "store" / ("b" + IN_A_NAME + "\n"))
    assert "a split in store is called 'b" in said(capsysbinary, *(word.format("store") for word in words), codes=(2,))
    seal_again(there / "store" / "train", spec=lambda spec: spec["transfer_set"].update(split=ODD))
    assert "a split in store/train is called" in said(
        capsysbinary, *(word.format("store/train") for word in words), codes=(2,)
    )


def test_an_unfinished_store(there: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (there / "store" / "train" / "manifest.json").unlink()
    (there / "store" / "train" / "staging").mkdir()
    (there / "store" / "train" / "staging" / IN_A_NAME).touch()
    for words in STORE:
        said(capsysbinary, *(word.format("store") for word in words))


@pytest.mark.parametrize("file", ["results.json", "run.json", "config.yaml"])
def test_a_run(there: Path, capsysbinary: pytest.CaptureFixture[bytes], file: str) -> None:
    """Every text and every name in it is replaced."""
    path = there / "run" / file
    if file == "config.yaml":
        path.write_text(
            path.read_text().replace("softlabels.models.MLP", json.dumps(ODD)).replace("toy", json.dumps(ODD))
        )
    else:
        found = json.loads(path.read_text())
        path.write_text(json.dumps({**_replaced(found), "store": "store"}))
    for words in (
        ["evaluate", "run/distilled-seed0"], ["export", "run/distilled-seed0", "--trust", "--formats=torch"],
        ["evaluate", "run"], ["train-student", "--store=store", RECIPE, "--out=run"],
    ):  # fmt: skip
        said(capsysbinary, *words)


def _replaced(value: Any) -> Any:
    if isinstance(value, dict):
        return {name + ODD * (len(name) % 2): _replaced(each) for name, each in value.items()} | value
    return [_replaced(each) for each in value] if isinstance(value, list) else ODD if isinstance(value, str) else value


def test_a_cache(there: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = there / "cache" / ("ab" * 16)
    entry.mkdir(parents=True)
    (entry / "meta.json").write_text(
        json.dumps({"identity": {}, "about": {"transfer_set": ODD, "split": ODD, "rows": 3}, "facts": {}, "files": []})
    )
    assert r"\x1b]0;owned" in said(capsysbinary, "cache", codes=(0,))
    (there / "cache" / ("cd" * 16)).symlink_to(IN_A_NAME)
    said(capsysbinary, "cache", "--clear", codes=(0,))


def test_a_recipe(there: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    recipe = toy.recipe(training={ODD: 1})
    for key in ("name", "student", "training", "transfer_set"):
        (there / "odd.yaml").write_text(json.dumps({**recipe, key: ODD}))
        for stage in ("train-student", "teacher-logits", "train-teacher", "evaluate"):
            said(capsysbinary, stage, "--config=odd.yaml", "--store=store", codes=(2,))
    said(capsysbinary, "train-student", f"--{ODD}=1", codes=(2,))
    said(capsysbinary, ODD, codes=(2,))


def test_an_error_can_be_printed_as_it_is() -> None:
    """Also by who catches it, in Python."""
    error = ConfigError(f"class {ODD}\nis bad", remedy=f"rename\t{ODD}")
    for text in (str(error), error.what, error.remedy):
        assert text.isprintable()
    assert error.what.endswith(r"EVIL EVIL EVIL EVIL is bad")
    copied = SoftLabelsError.__new__(ConfigError, str(error))
    copied.__init__("Traceback:\n  line\x1b[2J")  # type: ignore[call-arg,misc]  # as torch's DataLoader does
    assert str(copied) == "Traceback:\n  line\\x1b[2J"


def test_text_is_seen_as_it_is(rng: np.random.Generator) -> None:
    every = "".join(map(chr, [*range(1, 0x3100), *range(0xD7F0, 0x11000), *range(0xE0000, 0xE0200)]))
    for text in (every, "".join(chr(int(number)) for number in rng.integers(1, 0x3000, 5000))):
        assert one_line(text, None).isprintable()
        assert all(line.isprintable() for line in visible(text).replace("\t", "").split("\n"))
        assert visible(visible(text)) == visible(text)
    plain = "straße 東京  ±½ é 🚀 (two  blanks stay)"
    assert visible(plain) == one_line(plain) == plain
    assert one_line(" a\r\n\t b\u00a0c ") == "a b c"
    assert visible("caf\udcc3\udca9 \ud800") == r"caf\xc3\xa9 \ud800"


def test_progress_bars_still_move(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        with tqdm(total=3, file=Visible(sys.stdout), position=number, desc="a\x1b[2Jb") as bar:
            bar.update(3)
    text = capsys.readouterr().out
    assert "\x1b[2J" not in text
    assert r"a\x1b[2Jb: 100%" in text
    assert "\r" in text
    assert "\x1b[A" in text
