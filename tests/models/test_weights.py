from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file
from torch import nn

from softlabels.errors import StorageError, WeightsError
from softlabels.models import load_weights, save_weights, weights_digest
from softlabels.models.cnn import ConvNet
from softlabels.models.mlp import MLP


class Tied(nn.Module):
    """An embedding whose matrix is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight


def shuffled(model: nn.Module) -> nn.Module:
    """The model with every tensor replaced by noise, buffers too."""
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) * 5)
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(left, right) for left, right in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "make", [lambda: MLP(4, [3, 2], 2), lambda: ConvNet([4, 5], 3), Tied, lambda: nn.BatchNorm1d(3).half()]
)
def test_saved_weights_load_bit_for_bit(tmp_path: Path, make: type[nn.Module]) -> None:
    model, other = shuffled(make()), make()
    save_weights(model, tmp_path / "some" / "new.safetensors")
    assert not same(model, other)
    load_weights(other, tmp_path / "some" / "new.safetensors")
    assert same(model, other)
    assert weights_digest(model) == weights_digest(other)
    assert [file.name for file in (tmp_path / "some").iterdir()] == ["new.safetensors"]


def test_tied_tensors_are_written_once_and_found_under_any_name(tmp_path: Path) -> None:
    model = Tied()
    save_weights(model, tmp_path / "tied.safetensors")
    tensors = load_file(tmp_path / "tied.safetensors")
    assert sorted(tensors) == ["embedding.weight", "head.bias"]
    matrix = tensors.pop("embedding.weight")
    for names in (["head.weight"], ["head.weight", "embedding.weight"]):
        save_file({**tensors, **{name: matrix.clone() for name in names}}, tmp_path / "other.safetensors")
        other = Tied()
        load_weights(other, tmp_path / "other.safetensors")
        assert same(model, other)
    save_file({**tensors, "embedding.weight": matrix, "head.weight": matrix + 1}, tmp_path / "torn.safetensors")
    with pytest.raises(WeightsError, match=r"several values to tensors that the model ties: (head|embedding)\.weight;"):
        load_weights(Tied(), tmp_path / "torn.safetensors")


def test_views_of_one_tensor_are_saved_as_tensors_of_their_own(tmp_path: Path) -> None:
    model = nn.Module()
    whole = torch.randn(4, 6)
    for name, part in (("left", whole[:, :3]), ("turned", whole.T), ("row", whole[1])):
        model.register_buffer(name, part)
    save_weights(model, tmp_path / "views.safetensors")
    found = load_file(tmp_path / "views.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_misfits_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    tensors = {name: tensor.clone() for name, tensor in MLP(4, [3], 2).state_dict().items()}
    save_file({name: tensor for name, tensor in tensors.items() if name != "head.bias"}, path)
    with pytest.raises(WeightsError, match=r"lacks head\.bias; name the class"):
        load_weights(MLP(4, [3], 2), path)
    save_file({**tensors, "tail.bias": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"that the model lacks: tail\.bias;"):
        load_weights(MLP(4, [3], 2), path)
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"shape: layers\.0\.weight \(\[3, 4\], the model has \[3, 5\]\);"):
        load_weights(MLP(5, [3], 2), path)


def test_five_misfits_are_named_and_the_others_counted(tmp_path: Path) -> None:
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "some.safetensors")
    with pytest.raises(WeightsError) as error:
        load_weights(MLP(4, [3, 3, 3, 3], 2), tmp_path / "some.safetensors")
    assert error.value.what.count("layers.") == 5
    assert error.value.what.endswith("and 4 more")


def test_a_misfit_changes_no_tensor(tmp_path: Path) -> None:
    save_weights(MLP(4, [3], 3), tmp_path / "some.safetensors")
    model = MLP(4, [3], 2)
    before = weights_digest(model)
    with pytest.raises(WeightsError):
        load_weights(model, tmp_path / "some.safetensors")
    assert weights_digest(model) == before


def test_a_narrower_dtype_widens_and_no_other_is_converted(tmp_path: Path) -> None:
    model = shuffled(nn.Linear(3, 2))
    for dtype in (torch.float16, torch.bfloat16):
        narrow = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        save_file(narrow, tmp_path / "narrow.safetensors")
        other = nn.Linear(3, 2)
        load_weights(other, tmp_path / "narrow.safetensors")
        assert all(torch.equal(other.state_dict()[name], tensor.float()) for name, tensor in narrow.items())
    for dtype in (torch.float64, torch.int32, torch.bool):
        save_file(
            {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, tmp_path / "other.safetensors"
        )
        with pytest.raises(WeightsError, match="does not fit in dtype: weight"):
            load_weights(nn.Linear(3, 2), tmp_path / "other.safetensors")


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickles_are_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    trap = {"weight": Trap(tmp_path / "ran")}
    torch.save(trap, tmp_path / "new.pt")
    torch.save(trap, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.safetensors").write_bytes(pickle.dumps(trap))
    for name in ("new.pt", "legacy.pt", "plain.safetensors"):
        with pytest.raises(WeightsError, match=r"is a pickle.*safetensors\.torch\.save_file"):
            load_weights(nn.Linear(2, 2), tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_whole_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_weights(nn.Linear(9, 9), path)
    whole = path.read_bytes()
    for data in (b"", whole[:40], whole[:-1], b"\xff" * 8 + whole[8:], b"text"):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="not a complete safetensors file"):
            load_weights(nn.Linear(9, 9), path)
    with pytest.raises(WeightsError, match="there is a folder"):
        load_weights(nn.Linear(9, 9), tmp_path)


def test_the_digest_follows_its_definition(rng: np.random.Generator) -> None:
    model = nn.Module()
    values = {
        "b": rng.standard_normal((2, 3)).astype(np.float32),
        "a": rng.integers(0, 9, ()),
        "c": rng.random(4) > 0.5,
    }
    for name, value in values.items():
        model.register_buffer(name, torch.from_numpy(np.asarray(value)))
    lines = (
        json.dumps([name, values[name].dtype.name, list(values[name].shape)]).encode() + b"\n" + values[name].tobytes()
        for name in "abc"
    )
    assert weights_digest(model) == blake3(b"".join(lines)).hexdigest()


def test_the_digest_sees_values_names_dtypes_and_shapes_and_nothing_else() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        model = nn.Module()
        for name, tensor in tensors.items():
            model.register_buffer(name, tensor)
        return weights_digest(model)

    tensor, other = torch.randn(4, 6), torch.randn(3)
    reference = digest(a=tensor, b=other)
    assert digest(b=other, a=tensor.T.contiguous().T) == reference
    changed = tensor.clone()
    changed[2, 3] += 1
    others = [
        digest(a=changed, b=other),
        digest(a=tensor, c=other),
        digest(a=tensor.view(6, 4), b=other),
        digest(a=tensor),
    ]
    others += [digest(a=tensor.view(torch.int32), b=other), digest(a=tensor, b=other.bfloat16())]
    assert len({reference, *others}) == 7


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "words"

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(WeightsError, match="no tensor: _extra_state"):
        save_weights(Odd(2, 2), tmp_path / "odd.safetensors")


def test_a_kill_while_saving_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_weights(nn.Linear(9, 9), path)
    before = path.read_bytes()
    script = (
        "import os, sys, torch\n"
        "from softlabels.models import save_weights\n"
        "os.replace = os.rename = os.link = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "save_weights(torch.nn.Linear(9, 9), sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        save_weights(nn.Linear(2, 2), tmp_path / "file" / "some.safetensors")
