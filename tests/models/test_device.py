"""The words for a device, and its arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from softlabels.errors import ConfigError
from softlabels.models.device import resolve_device, warm_up
from softlabels.store.spec import TeacherSpec
from softlabels.student.seeding import seed_everything
from softlabels.teacher import ensemble
from softlabels_stages import encode
from tests.store.samples import make_spec, sample, write_store


def test_words_and_what_they_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(resolve_device(name)) for name in ("auto", "cpu", "cuda", "cuda:1")] == [
        "cuda",
        "cpu",
        "cuda",
        "cuda:1",
    ]
    for rank, device in (("0", "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")):  # as torchrun says
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert (str(resolve_device("auto")), str(resolve_device("cuda"))) == (device, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(resolve_device("auto")) == "cpu"


@pytest.mark.parametrize("name", ["meta", "mps", "xpu:1", "cpu:1", "cuda:", "gpu", ""])
def test_another_word_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda or cuda:N"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:99999999999"])
def test_a_device_that_is_not_there_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=f"device is {name}, and torch finds 2 CUDA devices"):
        resolve_device(name)


def test_the_first_call_of_vectorised_functions_is_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, seen = torch.get_num_threads(), []
    exp = torch.exp
    monkeypatch.setattr(torch, "exp", lambda x: (seen.append(torch.get_num_threads()), exp(x))[1])
    torch.set_num_threads(2)
    try:
        warm_up.cache_clear()
        warm_up()
        assert torch.get_num_threads() == 2
        warm_up()
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 1, 1]


class Warmed(Exception):
    pass


def test_whoever_makes_labels_or_weights_calls_them_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def warmed() -> None:
        raise Warmed

    for module in ("softlabels.teacher.ensemble", "softlabels.jobs.encode", "softlabels.student.seeding"):
        monkeypatch.setattr(f"{module}.warm_up", warmed)
    with pytest.raises(Warmed):
        ensemble.Ensemble((), TeacherSpec(name="t", precision="float32", members=()), torch.device("cpu"))
    with pytest.raises(Warmed):
        seed_everything(1)
    data = sample(rng, 5)
    write_store(tmp_path / "dense", data, make_spec(data))
    monkeypatch.setattr("softlabels.jobs.stores.find_basis", None)
    with pytest.raises(Warmed):
        encode.main([f"--from={tmp_path / 'dense'}", f"--store={tmp_path / 'sparse'}", "--k=2", "--rank=1"])
