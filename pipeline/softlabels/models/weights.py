"""Weights in safetensors files: load, save, digest. Nothing else is opened: a pickle can run code.

Tied tensors (one tensor under several names) are written once, under the first of their names, and found again under all.
Neighbour: a run's own checkpoint, with optimizer and position, is `student`'s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from softlabels.errors import WeightsError, some
from softlabels.models.spread import is_elsewhere, values_of
from softlabels.system.durable import system_errors
from softlabels.system.local import LocalFolder

# Modules that put their own name before those of the model inside them.
_WRAPPERS = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "a checkpoint wrapper",
}
_CONVERT = (
    "convert it where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'new.safetensors')"
)


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the tensors of a safetensors file into `model`, all of them or none.

    Names and shapes must agree. A narrower floating dtype in the file widens without loss; nothing else is converted.

    Raises:
        WeightsError: no such file, no safetensors file (a pickle is named as one), or tensors that are missing, unexpected,
            of another shape or dtype, different though the model ties them, or named after what was wrapped around it.
        StorageError: the file cannot be read.
    """
    path = Path(path)
    wanted, found = _tensors(model), _read(path)
    first = _first_names(wanted)
    given = {first[name]: tensor for name, tensor in found.items() if name in wanted}
    loaded = {name: found.get(name, given[first[name]]) for name in wanted if first[name] in given}
    wrapped = wrapping(found, wanted) or _other_lead(found, wanted)
    if wrapped is not None:
        raise WeightsError(f"the tensors in weights file {path} have {wrapped[0]}", remedy=wrapped[1])
    _refuse(path, "lacks", [name for name in wanted if name not in loaded])
    _refuse(path, "has tensors that the model lacks:", [name for name in found if name not in wanted])
    for what, differ in (("shape", _other_shape), ("dtype", _other_dtype)):
        wrong = [
            f"{name} ({differ(loaded[name], tensor)})"
            for name, tensor in wanted.items()
            if differ(loaded[name], tensor)
        ]
        _refuse(path, f"does not fit in {what}:", wrong)
    twins = ((name, tensor, given[first[name]]) for name, tensor in loaded.items())
    untied = [name for name, tensor, twin in twins if tensor is not twin and not torch.equal(tensor, twin)]
    _refuse(path, "gives several values to tensors that the model ties:", untied)
    model.load_state_dict(loaded)


def save_weights(model: nn.Module, path: Path | str, *, folder: LocalFolder | None = None) -> None:
    """Write the model's tensors to a safetensors file; atomic and flushed, so `path` holds the old file or the whole new one.

    Args:
        path: the file; a name in `folder` where that is given, which reaches it through no link.

    Raises:
        DiskFull, StorageError: the file cannot be written; `path` is as it was.

    Example:
        >>> from softlabels.models import build_model, save_weights
        >>> linear = {"inputs": 6, "hidden": [], "classes": 5}
        >>> save_weights(build_model(ModelConfig("softlabels.models.MLP", linear)), "linear.safetensors")
        >>> same = build_model(ModelConfig("softlabels.models.MLP", linear, "linear.safetensors"))
    """
    path = Path(path)
    tensors = _tensors(model)
    first = _first_names(tensors)
    own = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
        if first[name] == name
    }
    folder = folder or LocalFolder(path.parent)
    folder.make()
    folder.put(path.name, save(own))


def weights_digest(model: nn.Module) -> str:
    """blake3 (hex) over the model's tensors, whatever file, device or order they came from; of a model without tensors that
    has a `file_digest` (an estimator) that one.

    Sorted by name; of each: name, dtype and shape as one line of JSON, then its bytes in C order, little-endian.
    """
    if own := getattr(model, "file_digest", ""):  # an estimator
        return str(own)
    hasher = blake3()
    for name, tensor in sorted(_tensors(model, spread=True).items()):
        line = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        hasher.update(f"{line}\n".encode())
        hasher.update(values_of(model, name, tensor).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def require_savable(model: nn.Module) -> None:
    """Raise `WeightsError` where the model's state is more than dense tensors, before it is trained in vain."""
    _tensors(model)


def wrapping(found: Collection[str], wanted: Collection[str]) -> tuple[str, str] | None:
    """What was wrapped around the model whose tensors have the names `found`, where some of them are not among its names
    `wanted`: in words that follow "have", and what to do; None where nothing was.
    """
    strangers = set(found) - set(wanted)
    for word, wrapper in _WRAPPERS.items():
        if any(word in name.split(".") for name in strangers):
            return (
                f"the prefix '{word}.', of a model that was saved inside {wrapper}",
                "save the inner model's state_dict(), or rename the tensors: "
                f"'.'.join(part for part in name.split('.') if part != '{word}')",
            )
    return None


def _other_lead(found: Collection[str], wanted: Collection[str]) -> tuple[str, str] | None:
    """The same of the first part of all names: one that the model's names lack, or have."""
    fits = len(set(found) & set(wanted))
    for lead in sorted({name.partition(".")[0] for name in [*found, *wanted]}):
        if len({name.removeprefix(f"{lead}.") for name in found} & set(wanted)) > fits:
            return f"the prefix '{lead}.', which the model's names lack", f"rename them: name.removeprefix('{lead}.')"
        if len({f"{lead}.{name}" for name in found} & set(wanted)) > fits:
            return (
                f"not the prefix '{lead}.' of the model's names",
                f"rename them: '{lead}.' + name; of a Hugging Face checkpoint name its folder in init_args.model instead",
            )
    return None


def _tensors(model: nn.Module, *, spread: bool = False) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached; not copied. Where the model may be `spread`, see there, without values."""
    state = model.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    odd = [
        f"{name} ({str(value.layout).removeprefix('torch.')}{', quantized' * value.is_quantized}{', meta' * value.is_meta})"
        for name, value in state.items()
        if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized or value.is_meta)
        if not (spread and value.is_meta and is_elsewhere(model, name))
    ]
    if odd:
        raise WeightsError(
            f"{type(model).__name__} keeps tensors that safetensors cannot hold: {some(odd)}",
            remedy="make it dense (.to_dense()), or build it in __init__ and register it with persistent=False",
        )
    if others:
        raise WeightsError(
            f"{type(model).__name__} keeps state that is no tensor: {some(others)}",
            remedy="keep it in init_args, or in a buffer",
        )
    return {name: value.detach() for name, value in state.items()}


def _first_names(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Name -> the first, in sorted order, of the names that the same tensor has."""
    seen: dict[tuple[object, ...], str] = {}
    first = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        first[name] = seen.setdefault(place, name) if tensor.numel() else name
    return first


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU."""
    with opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, whose tensors are read one by one. Raises `WeightsError`, `StorageError`."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise WeightsError(f"weights file {path}: there is {found}", remedy="name a safetensors file")
    try:
        with (
            system_errors("read", path),
            _in_utf8(path) as named,
            safe_open(named, framework="pt", device="cpu") as file,
        ):
            yield file
    except SafetensorError as error:
        if _is_pickle(path):
            raise WeightsError(f"{path} is a pickle, which can run code when it is opened", remedy=_CONVERT) from None
        raise WeightsError(
            f"{path} is not a complete safetensors file: {error}",
            remedy="save or fetch it again; only safetensors files are read",
        ) from error


@contextmanager
def _in_utf8(path: Path) -> Iterator[Path]:
    """A path to the same file that is UTF-8, which safetensors asks of one."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield path
        return
    with path.open("rb") as file:
        yield Path(f"/dev/fd/{file.fileno()}")


def _is_pickle(path: Path) -> bool:
    with system_errors("read", path), path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _other_shape(given: Tensor, own: Tensor) -> str:
    """How the shapes differ, empty where they do not."""
    return "" if given.shape == own.shape else f"{list(given.shape)}, the model has {list(own.shape)}"


def _other_dtype(given: Tensor, own: Tensor) -> str:
    """How the dtypes differ, empty where they do not or the given one widens without loss."""
    widens = given.is_floating_point() and own.is_floating_point() and given.dtype.itemsize < own.dtype.itemsize
    return "" if widens or given.dtype == own.dtype else f"{given.dtype}, the model has {own.dtype}"


def _refuse(path: Path, what: str, names: list[str]) -> None:
    if names:
        raise WeightsError(
            f"weights file {path} {what} {some(names)}",
            remedy="name the class and init_args that these weights belong to",
        )
