"""Errors cross a border between processes: class, exit code, what and remedy arrive."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from softlabels.errors import DamagedShard, SoftLabelsError
from softlabels.stream import SoftLabelDataset
from tests.stream.samples import rows_of, write_store


def tree(cls: type[SoftLabelsError]) -> Iterator[type[SoftLabelsError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from tree(below)


CLASSES = list(tree(SoftLabelsError))


def arrived(error: SoftLabelsError) -> tuple[object, ...]:
    return type(error), error.exit_code, str(error), error.what, error.remedy


def failing(number: int) -> None:
    raise CLASSES[number](f"rule {number} was broken", remedy=f"mend {number}")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_is_pickled_and_copied(protocol: int) -> None:
    assert len(CLASSES) > 40
    for cls in CLASSES:
        error = cls("the shard is damaged", remedy="repair it")
        error.add_note("a note")
        again = pickle.loads(pickle.dumps(error, protocol))
        assert arrived(again) == arrived(error) == arrived(copy.copy(error))
        assert again.__notes__ == ["a note"]


def test_every_error_leaves_a_pool_of_processes_as_it_is() -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        answers = [pool.submit(failing, number) for number in range(len(CLASSES))]
        for number, (cls, answer) in enumerate(zip(CLASSES, answers, strict=True)):
            expected = cls(f"rule {number} was broken", remedy=f"mend {number}")
            assert arrived(answer.exception(timeout=60)) == arrived(expected)  # type: ignore[arg-type]


def test_a_damaged_shard_in_a_worker_of_a_data_loader_is_a_damaged_shard(tmp_path: Path) -> None:
    numbers = np.arange(64)
    store = write_store(tmp_path / "store", numbers)
    [file, *_] = sorted((tmp_path / "store" / "logits").glob("c.*"))
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    loader = DataLoader(SoftLabelDataset(rows_of(numbers), store), batch_size=16, num_workers=2)
    with pytest.raises(DamagedShard, match=r"DataLoader worker process \d(.|\n)*DamagedShard: .*; ") as caught:
        list(loader)
    assert caught.value.exit_code == 3
