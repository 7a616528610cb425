"""Salted content keys: against the written rule, from the recipe to the store, and who lacks the salt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from blake3 import blake3

from softlabels.errors import ConfigError
from softlabels.models import build_model, save_weights
from softlabels.models.build import ModelConfig
from softlabels.objects import ObjectSpec
from softlabels.store import open_store
from softlabels.transfer import TransferSetConfig, array_keys, load_transfer_set
from softlabels.transfer.keys import salted_keys
from softlabels.transfer.salt import read_salt
from softlabels_stages.__main__ import main
from tests.stages import toy

SALT, OTHER = "an honest salt of some length", "another salt of some length"


def by_the_rule(message: bytes, *, seed: int = 0, salt: str = SALT) -> bytes:
    """docs/format.md, "Content keys", version 3; nothing of the library."""
    secret = blake3(salt.encode(), derive_key_context="softlabels content keys, rule 3").digest()
    return blake3(xxhash.xxh3_128(message, seed=seed).digest(), key=secret).digest()[:16]


def lengths(rows: list[str | None]) -> np.ndarray:
    return np.array([[len(row or "")] for row in rows], np.float32)


def test_keys_are_those_of_the_written_rule(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(5, 3)).astype(np.float32)
    found = salted_keys(array_keys(rows), SALT.encode())
    assert [key.tobytes() for key in found] == [by_the_rule(b"float32[3]\0" + row.tobytes()) for row in rows]
    assert found.dtype == np.uint8
    assert not (found == salted_keys(array_keys(rows), OTHER.encode())).all(axis=1).any()
    assert salted_keys(array_keys(rows[:0]), SALT.encode()).shape == (0, 16)


def test_rows_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, ids and rows that miss their input; the cache is that of the same rows without a salt."""
    monkeypatch.setenv("SALT", SALT)
    (tmp_path / "rows.csv").write_text("id,text\n7,plain\n8,naïve\n9,\n")
    settings: dict[str, Any] = {
        "source": str(tmp_path / "rows.csv"), "inputs": ("text",), "label": None, "missing": "pass",
        "splits": {"train": "train"}, "prepare": ObjectSpec(f"{__name__}.lengths"),
    }  # fmt: skip
    plain = load_transfer_set(TransferSetConfig(**settings), "train", cache=tmp_path)
    entries = sorted(tmp_path.iterdir())
    rows = load_transfer_set(TransferSetConfig(key_salt="env:SALT", **settings), "train", cache=tmp_path)
    expected = [by_the_rule(b"plain"), by_the_rule("naïve".encode()), by_the_rule(b"\xff" * 8, seed=2)]
    assert [key.tobytes() for key in rows.keys] == expected
    assert (plain.key_rule, rows.key_rule) == (2, 3)
    assert sorted(tmp_path.iterdir()) == entries
    ids = load_transfer_set(TransferSetConfig(key_salt="env:SALT", key="id", **settings), "train", cache=tmp_path)
    assert [key.tobytes() for key in ids.keys] == [by_the_rule(number) for number in (b"7", b"8", b"9")]
    assert ids.key_rule == 3


def test_where_a_salt_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALT", f" {SALT}\n")
    monkeypatch.setenv("SHORT", "0123456789abcde")
    (tmp_path / "salt").write_text(f"{SALT}\n")
    (tmp_path / "none").touch()
    os.mkfifo(tmp_path / "pipe")
    assert read_salt("env:SALT") == read_salt(str(tmp_path / "salt")) == SALT.encode()
    for named, words in {
        "env:NONE": "variable NONE holds nothing; give 16 random bytes",
        "env:SHORT": "variable SHORT holds 15 bytes, which can be guessed",
        str(tmp_path / "none"): "none holds nothing",
        str(tmp_path / "gone"): "there is no file .*gone; give the file",
    }.items():
        with pytest.raises(ConfigError, match=words):
            read_salt(named)
    with pytest.raises(Exception, match="pipe is not a plain file"):
        read_salt(str(tmp_path / "pipe"))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], str]:
    """Write a recipe with a salt, and give it as a flag."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SALT", SALT)
    monkeypatch.setenv("OTHER", OTHER)
    student = toy.recipe()["student"]
    save_weights(build_model(ModelConfig(**student)), tmp_path / "teacher.safetensors")

    def write(salt: str | None) -> str:
        changes = {
            "transfer_set": toy.recipe()["transfer_set"] | {"key_salt": salt, "splits": {"train": "train"}},
            "teacher": {"members": [student | {"weights": "teacher.safetensors"}], "device": "cpu"},
            "training": toy.recipe()["training"] | {"epochs": 1, "seeds": [0], "validation": 0.2},
        }
        return f"--config={toy.write_recipe(tmp_path / f'{salt}.yaml', **changes)}"

    return write


def test_a_store_with_salted_keys(
    recipe: Callable[[str | None], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, holds no salt, and only rows with its salt meet its labels."""
    assert main(["teacher-logits", recipe("env:SALT"), "--store=store"]) == 0
    store = open_store("store/train")
    assert (store.manifest.format, store.spec.transfer_set.key_rule) == (3, 3)
    rows = toy.points("train")["x"]
    expected = [by_the_rule(b"float32[6]\0" + row.tobytes()) for row in rows]
    assert [bytes(key) for key in np.asarray(store.column("content_key"))] == expected
    assert main(["train-student", recipe("env:SALT"), "--store=store", "--out=run"]) == 0
    for words in (
        ["verify", "store"],
        ["convert", "store", "copy"],
        ["teacher-logits", recipe("env:SALT"), "--store=store"],
    ):
        assert main(words) == 0
    assert main(["info", "store"]) == 0
    assert "transfer set  points, split train, 160 rows, salted keys" in capsys.readouterr().out
    assert open_store("copy/train").spec.transfer_set.key_rule == 3
    kept = [
        file.read_bytes()
        for place in ("store", "copy", "run", "cache")
        for file in Path(place).rglob("*")
        if file.is_file()
    ]
    assert not any(SALT.encode() in data for data in kept)
    for salt in (None, "env:OTHER"):
        capsys.readouterr()
        assert main(["train-student", recipe(salt), "--store=store", "--out=other"]) == 2
        said = capsys.readouterr().err
        assert "UnlabelledRows: points (160 rows) and the store store/train (160 rows) share no content keys" in said
        assert "the store's keys are salted: give the salt that it was made with (transfer_set.key_salt: a file" in said
        assert main(["teacher-logits", recipe(salt), "--store=store"]) == 2
        assert "OtherRows: store/train was begun with another specification" in (said := capsys.readouterr().err)
        assert "and its key_salt where it has one" in said
        assert ("transfer_set.missing, key_salt: 3 here, null in this run" in said) == (salt is None), said


def test_rows_with_a_salt_and_a_store_without(
    recipe: Callable[[str | None], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teacher-logits", recipe(None), "--store=store"]) == 0
    assert main(["train-student", recipe("env:SALT"), "--store=store", "--out=run"]) == 2
    assert "same input columns of the same dtypes, and no key_salt" in capsys.readouterr().err


def test_outputs_with_ids_are_imported_with_a_salt(
    recipe: Callable[[str | None], str], rng: np.random.Generator
) -> None:
    np.savez("out.npz", logits=rng.normal(size=(4, 5)), user=np.array(["a", "b", "c", "d"]))
    assert main(["import", "--from=out.npz", "--key=user", "--store=store/train", recipe("env:SALT")]) == 0
    store = open_store("store/train")
    assert store.spec.transfer_set.key_rule == 3
    assert [bytes(key) for key in np.asarray(store.column("content_key"))] == [
        by_the_rule(name) for name in (b"a", b"b", b"c", b"d")
    ]
