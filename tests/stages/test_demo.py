"""`softlabels demo`, with fewer epochs: files that are there already are left as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from softlabels_stages import demo
from softlabels_stages.recipe import load


def small(folder: Path) -> bytes:
    """The demo's recipe, to be run in seconds, where the demo would write it."""
    recipe = load("digits")
    recipe["teacher"]["members"] = recipe["teacher"]["members"][:1]
    recipe["teacher_training"] |= {"epochs": 2, "scheduler": None}
    recipe["training"] |= {"epochs": 2, "scheduler": None, "seeds": [0]}
    folder.mkdir()
    (folder / "digits.yaml").write_text(yaml.safe_dump(recipe))
    return (folder / "digits.yaml").read_bytes()


def test_the_demo_ends_by_naming_the_report_and_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = small(tmp_path / "mine")
    assert demo.main(["--out=mine"]) == 0
    *_, report, following, last = capsys.readouterr().out.splitlines()
    assert (tmp_path / report.removeprefix("report: ")).is_file()
    assert (
        "data of your own: in mine change table.yaml for a table, text.yaml for texts, pictures.yaml for" in following
    )
    assert last.endswith("run there: softlabels train-teacher --config=table.yaml")
    for name in ("table", "text", "pictures"):
        assert load(f"mine/{name}.yaml") == load(name)
    assert Path.cwd() == tmp_path
    assert (tmp_path / "mine/digits.yaml").read_bytes() == recipe
    weights = (tmp_path / "mine/runs/digits/distilled-seed0/weights.safetensors").stat().st_mtime_ns
    assert demo.main(["--out=mine"]) == 0
    assert (tmp_path / "mine/runs/digits/distilled-seed0/weights.safetensors").stat().st_mtime_ns == weights
    assert capsys.readouterr().out.splitlines()[-3:] == [report, following, last]


def test_a_step_that_fails_ends_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/digits.yaml").write_text("nothing: of a recipe\n")
    assert demo.main(["--out=mine"]) == 2
    said = capsys.readouterr()
    assert "unknown section 'nothing'" in said.err
    assert "teacher-logits" not in said.out


@pytest.mark.parametrize("name", ["file", "file/below", "loop", "x" * 300, "s3://team/demo"])
def test_a_folder_that_cannot_be_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    assert demo.main([f"--out={name}"]) in (2, 74)
    assert capsys.readouterr().err.count("\n") == 1
