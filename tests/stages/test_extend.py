"""extend as a command: a recipe with more rows, killed too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from softlabels import open_store
from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.store.verify import verify
from softlabels_stages import extend, info, teacher_logits
from softlabels_stages import verify as verify_stage
from tests.stages import toy
from tests.stages.kills import digests, survives_kills


def some(split: str, every: int = 1) -> dict[str, np.ndarray]:
    """The factory of the transfer set: every so many-th row."""
    return {name: values[::every] for name, values in toy.points(split).items()}


@pytest.fixture
def recipes(work: Path) -> tuple[str, str]:
    """A recipe of some rows, and the same with more."""
    model = ModelConfig(toy.NET["class_path"], toy.NET["init_args"])
    save_weights(build_model(model), work / "net.safetensors")
    paths = []
    for every in (2, 1):
        made: dict[str, Any] = toy.recipe(
            teacher={"name": "mine", "members": [toy.NET], "batch_size": 16, "device": "cpu"},
            labels={"rows_per_shard": 32, "rows_per_chunk": 16},
        )
        made["transfer_set"]["factory"] = {"class_path": "tests.stages.test_extend.some", "init_args": {"every": every}}
        made["transfer_set"]["label"] = "label"
        made["transfer_set"]["splits"] = {"train": "train"} if every > 1 else {"train": "train", "test": "test"}
        (work / f"every{every}.yaml").write_text(yaml.safe_dump(made))
        paths.append(f"--config=every{every}.yaml")
    return paths[0], paths[1]


def test_a_recipe_with_more_rows(recipes: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    few, more = recipes
    assert teacher_logits.main([few, "--store=few"]) == 0
    before = digests("few")
    assert extend.main(["few", more, "--out=all"]) == 0
    said = capsys.readouterr().out
    assert "train: 80 of 160 rows are copied from few/train" in said
    assert "sealed: all (look: " in said
    assert digests("few") == before
    old, new = open_store("few"), open_store("all", split="train")
    np.testing.assert_array_equal(new.column("logits")[::2], old.column("logits"))
    assert (verify("all/train"), open_store("all", split="test").rows) == ([], 80)
    assert info.main(["all/train"]) == 0
    assert f"made of       extended {old.digest[:16]}" in capsys.readouterr().out
    assert verify_stage.main(["all", f"--against_teacher={more.partition('=')[2]}"]) == 0
    assert extend.main(["all", more, "--out=again"]) == 0
    assert "all already labels every row of points; nothing was written" in capsys.readouterr().out
    assert not Path("again").exists()


REFUSED = [
    (["{more}", "--out=new"], "needed; write softlabels extend STORE --config=RECIPE --out=NEW"),
    (["few", "{more}"], "a store and a target are needed"),
    (["few", "{more}", "--out=few"], "few and few: one is inside the other"),
    (["none", "{more}", "--out=new"], "none does not exist"),
    (["few", "--out=new"], "extend: teacher and transfer_set are missing, and no recipe is given"),
    (
        ["few", "{more}", "--out=new", "--labels.layout=arrow"],
        'few/train was labelled otherwise (labels.layout: "zarr"',
    ),
    (["few", "{more}", "--out=new", "--transfer_set.prepare=null"], "transfer_set.prepare"),
]


def test_what_is_refused(recipes: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    teacher_logits.main([recipes[0], "--store=few"])
    for words, said in REFUSED:
        capsys.readouterr()
        assert extend.main([word.format(more=recipes[1]) for word in words]) == 2
        assert said in capsys.readouterr().err
        assert not Path("new").exists()


@pytest.mark.slow
def test_killed_at_any_moment(recipes: tuple[str, str]) -> None:
    teacher_logits.main([recipes[0], "--store=few"])
    words = ["few", recipes[1]]
    assert extend.main([*words, "--out=whole"]) == 0
    go_on = [*words, "--out=store"]
    survives_kills(go_on, "whole", kills=20, finish=lambda: extend.main(go_on), stage="extend")
