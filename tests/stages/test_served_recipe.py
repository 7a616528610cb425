"""A served teacher by commands: the recipe that ships, labelled through a stand-in server, a student, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from softlabels import open_store
from softlabels_stages import configs, extend, info, teacher_logits, train_student, train_teacher, verify
from tests.stages import lm
from tests.teacher.stand_in import Model, StandIn, running


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A table in the place of a model, with more outputs than there are tokens."""
    with running(StandIn(table(400))) as found:
        yield found


def table(size: int) -> Model:
    """Log-probabilities of each token's next."""
    z = 2 * np.random.default_rng(3).normal(size=(size, size))
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return lambda tokens: log_p[[*tokens]]


@pytest.fixture
def recipe(work: Path, server: StandIn) -> dict[str, Any]:
    """The recipe that ships, of a small model's size."""
    rng = np.random.default_rng(7)
    (work / "texts").mkdir()
    for split, count in (("train", 60), ("test", 12)):
        texts = [lm.sentence(rng) for _ in range(count)]
        datasets.Dataset.from_dict({"text": texts}).to_parquet(work / "texts" / f"{split}.parquet")
    path = Path(next(iter(configs.__path__))) / "lm_served.yaml"
    made: dict[str, Any] = yaml.safe_load(path.read_text())
    small = lm.recipe()
    made |= {name: small[name] for name in ("tokenizer", "student")}
    made["transfer_set"]["sequences"] = {"tokenizer": "own/tokenizer", "length": 16}
    made["teacher"]["members"][0]["init_args"] |= {"url": server.url, "model": "tiny", "dtype": "float32"}
    made["labels"] |= {"k": 6, "rows_per_shard": 64, "rows_per_chunk": 16}
    Path("recipe.yaml").write_text(yaml.safe_dump(made))
    return made


def test_a_served_recipe(recipe: dict[str, Any], server: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config=recipe.yaml", "--store=store"]
    assert train_teacher.main(words[:1]) == 0  # its tokenizer
    tokens = len(AutoTokenizer.from_pretrained("own/tokenizer"))
    assert teacher_logits.main(words) == 2
    assert f"and the tokenizer has {tokens} tokens; name the served model's own tokenizer" in capsys.readouterr().err
    server.model = table(tokens)
    assert teacher_logits.main(words) == 0
    said = capsys.readouterr().out
    assert (
        f"asked: tiny (vLLM 0.11.2) at {server.url}, up to 32 requests at a time; its labels are the 6 largest" in said
    )
    before = len(server.asked)
    assert teacher_logits.main(words) == 0
    assert len(server.asked) == before + 2 * 16  # the sentinels of two splits, together and alone
    store = open_store("store", split="train")
    assert store.encoding.known_at == 1
    assert "input" in store.columns
    assert verify.main(["store"]) == 0
    assert info.main(["store/train"]) == 0
    assert "tiny (vLLM 0.11.2)" in capsys.readouterr().out + (Path("store") / "train" / "README.md").read_text()
    assert extend.main([*words, "--out=more"]) == 2
    assert "this runs the teacher's models itself" in capsys.readouterr().err
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 2
    assert train_student.main([*words, "--temperature=2"]) == 2
    assert "known at temperature 1 only" in capsys.readouterr().err
    brief = ["--epochs=1", "--batch_size=64", "--training.threads=1", "--training.device=cpu", "--baseline=false"]
    assert train_student.main([*words, *brief]) == 0


def test_a_server_that_is_not_there(recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    recipe["teacher"]["members"][0]["init_args"] |= {"url": "http://127.0.0.1:9", "tries": 1}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train_teacher.main(["--config=recipe.yaml"]) == 0
    assert "hub" not in capsys.readouterr().out  # which is not asked for what a server calls its model
    assert teacher_logits.main(["--config=recipe.yaml", "--store=store"]) == 75
    assert "NoAnswer: http://127.0.0.1:9/v1/models gives no answer in 1 tries: connect error" in capsys.readouterr().err
