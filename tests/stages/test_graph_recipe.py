"""The recipes `graph` and `chunker` in small, by the commands: from rows to students, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import chunker
from softlabels.store import open_store
from softlabels_stages import teacher_logits, train_student, train_teacher
from softlabels_stages.recipe import load
from tests.recipes.test_graph import write_graph


def test_graph_inductive(work: Path, rng: np.random.Generator) -> None:
    _, has = write_graph(work / "cora", rng)
    words, recipe = int(has.sum(axis=1).max()), load("graph_inductive")
    net = {"features": 20, "words": words, "hidden": [8], "classes": 2}
    members = [{**member, "init_args": net} for member in recipe["teacher"]["members"][:2]]
    flags = [
        "--config=graph_inductive",
        "--transfer_set.positions={most: 30}",
        f"--teacher.members={json.dumps(members)}",
    ]
    assert train_teacher.main([*flags, "--teacher_training.epochs=20"]) == 0
    assert teacher_logits.main(flags) == 0
    student = f"--student.init_args={json.dumps(net | {'neighbours': False})}"
    assert train_student.main([*flags, student, "--epochs=20", "--seeds=0,1", "--out=run"]) == 0
    store = open_store("stores/graph-inductive", split="test")
    assert (store.positions, store.rows) == (30, 1)
    results = json.loads((work / "run" / "results.json").read_text())
    scores = [results["teacher"]["ensemble"][0], *(each for kind in results["students"] for each in kind["scores"])]
    assert {each["labelled"] for each in scores} == {2}  # a fifth of the ten test nodes
    assert {each["rows"] for each in scores} == {2}  # and no others count
    assert [each["kind"] for each in results["students"]] == ["hard", "distilled"]


def test_the_two_recipes_of_graphs_are_one() -> None:
    one, other = load("graph"), load("graph_inductive")
    for recipe in (one, other):
        for name in ("name", "splits"):
            del recipe["transfer_set"][name]
        for member in recipe["teacher"]["members"]:
            del member["weights"]
        del recipe["name"]
    assert other["transfer_set"]["factory"]["init_args"].pop("unseen") == 0.2
    assert one == other


def test_chunker(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"gap": 4, "first": 2, "ring": 4, "messages": 3}
    net = {"symbols": 7, "hidden": 8, "answers": 3, "state": 4}
    [member] = load("chunker")["teacher"]["members"]
    flags = ["--config=chunker", f"--transfer_set.factory.init_args={json.dumps(sizes)}", "--transfer_set.positions=6"]
    flags.append(f"--teacher.members={json.dumps([{**member, 'init_args': net}])}")
    assert train_teacher.main([*flags, "--teacher_training.epochs=2", "--teacher_training.batch_size=5"]) == 0
    assert teacher_logits.main(flags) == 0
    store = open_store("stores/chunker", split="train")
    assert {each.name: each.encoding.target for each in store.spec.targets} == {
        "next": "softmax", "answer": "softmax", "state": "values",
    }  # fmt: skip
    quick = [f"--student.init_args={json.dumps(net)}", "--epochs=2", "--batch_size=5", "--seeds=0,1", "--out=run"]
    assert train_student.main([*flags, *quick]) == 0
    results = json.loads((work / "run" / "results.json").read_text())
    hard, distilled = results["students"]
    assert [*hard["scores"][0]["targets"]] == ["next", "answer"]
    assert [*distilled["scores"][0]["targets"]] == ["next", "answer", "state"]
    assert distilled["scores"][0]["targets"]["answer"]["labelled"] == len(open_store("stores/chunker", split="test"))

    capsys.readouterr()
    chunker.main(["run"])
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[1] for line in table] == ["chunker", "hard", "distilled"]
    log = work / "log.jsonl"
    shares = (0.2, 0.94, 0.96, 0.9)
    epochs = [
        {"epoch": n, "step": 5 * n, "targets": {"answer": {"accuracy": each}}} for n, each in enumerate(shares, 1)
    ]
    log.write_text("".join(f"{json.dumps(each)}\n" for each in [*epochs, {"end": True, "targets": {}}]))
    assert [chunker.steps_until(log, share) for share in (0.1, 0.95, 0.97)] == [5, 15, -20]
