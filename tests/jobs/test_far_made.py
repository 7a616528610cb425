"""Stores that commands make at an address, of stores at addresses, of files and of arrays: on a real S3 server they are what
they are in a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from softlabels import label, open_store
from softlabels import write_store as store_arrays
from softlabels.errors import ConfigError
from softlabels.jobs.export_labels import export_labels
from softlabels.jobs.extend import extend
from softlabels.jobs.import_labels import Foreign, import_labels
from softlabels.jobs.run_folder import RunFolder
from softlabels.jobs.share import pull, push
from softlabels.store import store_splits
from softlabels.store.verify import verify
from softlabels.system.urls import depot_of
from softlabels_stages.__main__ import main
from tests.jobs import foreign_files as files
from tests.jobs.test_extend import PLAIN, part
from tests.jobs.test_label_targets import rows_of, settings, teacher
from tests.jobs.test_sign import keys


def store_of(folder: Path | str, rng: np.random.Generator, rows: slice = slice(None), shift: float = 0.0) -> None:
    """A store of some of 40 rows of 3 classes."""
    inputs, logits = rng.normal(size=(40, 2)).astype(np.float32), rng.normal(size=(40, 2, 3)) + shift
    store_arrays(
        f"{folder}/train", logits[rows], inputs=inputs[rows], labels=np.arange(40)[rows] % 3, rows_per_shard=16
    )


def same(there: str, here: Path) -> None:
    """Sound stores of the same splits, with the same digests and what lies beside them, and nothing staged."""
    splits = store_splits(there)
    assert splits.keys() == store_splits(here).keys()
    assert all(verify(folder) == [] for folder in splits.values())
    digests = [{split: open_store(root, split=split).digest for split in splits} for root in (there, here)]
    assert digests[0] == digests[1]
    names = sorted(path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file())
    assert sorted(depot_of(there).list()) == [name for name in names if "staging" not in name]


def test_encode_merge_and_extend_from_there_to_there(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = PLAIN
    for base in (str(tmp_path), s3):
        rng = np.random.default_rng(0)
        rows = rows_of(of, rng)
        label(part(rows, np.arange(20)), teacher(of), settings(of), f"{base}/may")
        extend(f"{base}/may", rows, teacher(of), settings(of), f"{base}/june")
        assert main(["merge", f"{base}/may", f"{base}/june", f"--out={base}/both", "--missing=skip"]) == 0
        assert f"sealed: {base}/both (look: " in capsys.readouterr().out
        assert main(["encode", f"--from={base}/june", f"--store={base}/topk", "--k=2", "--tail=prior"]) == 0
        assert f"info {base}/topk)" in capsys.readouterr().out
    for name in ("may", "june", "both", "topk"):
        same(f"{s3}/{name}", tmp_path / name)


@pytest.mark.slow
def test_every_other_command_writes_there(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, public = keys(tmp_path, "team")
    np.savez(
        tmp_path / "forest.npz",
        logits=np.random.default_rng(1).normal(size=(40, 5)),
        inputs=np.arange(80.0).reshape(40, 2),
    )
    for base in (str(tmp_path), s3):
        store_of(f"{base}/a", np.random.default_rng(0), slice(20))
        store_of(f"{base}/b", np.random.default_rng(0), slice(20, 40))
        for words in (
            ["concat", f"{base}/a", f"{base}/b", f"--out={base}/both"],
            ["select", f"{base}/both", f"--out={base}/few", "--rows=0:25"],
            ["convert", f"--from={base}/both", f"--store={base}/arrow"],
            ["import", str(tmp_path / "forest.npz"), f"{base}/forest/train"],
            ["sign", f"{base}/both", f"--key={own}"],
            ["verify", f"{base}/both", f"--signed_by={public}"],
            ["repair", f"{base}/both"],
        ):
            assert main(words) == 0, capsys.readouterr().err
        assert f"sealed: {base}/forest/train, 40 rows" in capsys.readouterr().out
    for name in ("both", "few", "arrow", "forest"):
        same(f"{s3}/{name}", tmp_path / name)


def test_arrays_and_the_folder_that_they_lie_in(s3: str, tmp_path: Path) -> None:
    for base in (tmp_path, s3):
        store_of(f"{base}/noise", np.random.default_rng(0))
    same(f"{s3}/noise", tmp_path / "noise")
    assert open_store(f"{s3}/noise/train").spec.transfer_set.name == "noise"
    with pytest.raises(ConfigError, match=rf"the folder {s3}/noise does not say .*, such as {s3}/noise/train"):
        store_arrays(f"{s3}/noise", np.zeros((4, 3)), inputs=np.zeros((4, 1)))


@pytest.mark.slow
def test_labels_of_others(s3: str, tmp_path: Path) -> None:
    said = Foreign(tokenizer=files.write_tokenizer(tmp_path / "tokenizer"))
    for base in (tmp_path, s3):
        import_labels(
            Path(__file__).parent / "distillkit/poly", f"{base}/lm/train", from_format="distillkit", foreign=said
        )
    same(f"{s3}/lm", tmp_path / "lm")


def test_what_lies_on_this_machine_names_no_address(s3: str, tmp_path: Path) -> None:
    there = f"{s3}/new"
    acts: tuple[Callable[[], object], ...] = (
        partial(pull, s3, there),
        partial(push, s3, there),
        partial(export_labels, s3, f"{there}.npz", to_format="npz"),
        partial(RunFolder.open, there, name="run", identity={}),
    )
    for act in acts:
        with pytest.raises(
            ConfigError, match=r"an address \(s3:\) is given where a path of this machine is needed; .* for stores"
        ):
            act()
    assert not Path("s3:").exists()
