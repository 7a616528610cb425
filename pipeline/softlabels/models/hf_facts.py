"""What a Hugging Face folder says that decides its outputs and is not applied here: each is refused by its name. Extra `[hf]`.

Files are looked at before transformers opens them, so that nothing depends on which packages are installed: with peft, for one,
transformers would apply an adapter, and without it leave the adapter out. Neighbour: `hf_network` loads what passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from softlabels.errors import ClassMismatch, WeightsError, some
from softlabels.labels.targets import Target
from softlabels.models.weights import wrapping
from softlabels.system.durable import system_errors
from softlabels.transfer.pretrained import matching

ADAPTER = ("adapter_config.json", "adapter_model*")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SOFTMAX = "single_label_classification"
HEADS: dict[str, Target] = {SOFTMAX: "softmax", "multi_label_classification": "sigmoid", "regression": "values"}
_PARTS = {
    "lora_A", "lora_B", "lora_embedding", "base_layer", "qweight", "qzeros", "absmax", "weight_packed", "weight_scale",
}  # fmt: skip


def require_plain_weights(folder: Path, name: str) -> None:
    """Refuse adapters, quantized weights, and weights that lie in several places.

    Raises:
        WeightsError: naming what it is. StorageError: a file that cannot be read.
    """
    adapter = matching(folder, ADAPTER)
    if adapter:
        raise WeightsError(
            f"{name} holds an adapter ({', '.join(path.name for path in adapter)}), and adapters are not applied here",
            remedy="merge it where peft is installed, with its AutoPeftModel class: from_pretrained(FOLDER)"
            ".merge_and_unload().save_pretrained(NEW), and name NEW; the base model alone belongs in a folder without it",
        )
    quantized = _quantized(read_json(folder / "config.json"))
    if quantized is not None:
        raise _is_quantized(name, f"config.json says so: {quantized}")
    for file in _weight_files(folder, name):
        for tensor, dtype in _dtypes(file):
            if dtype[:2] in ("F8", "F4", "F6") or (dtype[:1] in "IU" and tensor.endswith("weight")):
                raise _is_quantized(name, f"{tensor} in {file.name} is {dtype}")


def require_whole(name: str, network: nn.Module, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Refuse tensors that the network has no place for because of what was wrapped around the model that was saved.

    Raises:
        WeightsError: the wrapper's prefix, or parts of an adapter or of quantized layers, by name.
    """
    strangers = sorted(unexpected)
    wrapped = wrapping(strangers, network.state_dict())
    if wrapped is not None:
        raise WeightsError(f"the weights in {name} have {wrapped[0]}", remedy=wrapped[1])
    parts = [key for key in strangers if _PARTS.intersection(key.split("."))]
    if parts:
        raise WeightsError(
            f"{name} holds parts of an adapter or of quantized layers: {some(parts)}",
            remedy="merge or dequantize the model where it was made, and save it again",
        )
    own, saved = type(network).__name__, getattr(network.config, "architectures", None) or [type(network).__name__]
    if own not in saved and not list(missing) and "Classification" in own:
        raise WeightsError(
            f"{name} was saved as {', '.join(saved)}, and {own} would take its head for one of another kind",
            remedy="name a checkpoint of this kind, or give classes for a new head, to be trained",
        )


def head_of(config: Any, name: str) -> tuple[Target, str]:
    """What the outputs of a head of classes are, and the words of its config that say so.

    Raises:
        ClassMismatch: a config that says nothing that is known.
    """
    kind = getattr(config, "problem_type", None)
    if kind is None:
        return ("values", "num_labels is 1, a regression") if config.num_labels < 2 else ("softmax", "no problem_type")
    if kind not in HEADS or (kind == SOFTMAX and config.num_labels < 2):
        raise ClassMismatch(
            f"{name}: problem_type is {kind}, and num_labels is {config.num_labels}",
            remedy=f"give config: {{problem_type: ...}}, one of {', '.join(HEADS)}; of one class not the first",
        )
    return HEADS[kind], f"problem_type is {kind}"


def numbered_names(config: Any, name: str) -> tuple[str, ...]:
    """The classes' names in the order of the logits.

    Raises:
        ClassMismatch: `id2label` numbers them otherwise than 0, 1, ..., or contradicts `label2id`.
    """
    id2label: Mapping[int, Any] = config.id2label
    names = tuple(str(id2label[number]) for number in sorted(id2label))
    if sorted(id2label) != list(range(len(names))):
        raise ClassMismatch(
            f"{name}: id2label names the classes {some(sorted(id2label))}, and logits are numbered from 0",
            remedy="correct id2label in its config.json",
        )
    back = {str(key): number for key, number in (getattr(config, "label2id", None) or {}).items()}
    other = [
        key for number, key in enumerate(names) if names.count(key) == 1 and str(back.get(key, number)) != str(number)
    ]
    if other:
        raise ClassMismatch(
            f"{name}: id2label says that {other[0]!r} is class {names.index(other[0])}, label2id that it is {back[other[0]]}",
            remedy="correct them in its config.json",
        )
    return names


def _weight_files(folder: Path, name: str) -> list[Path]:
    """The files that are loaded. Refuses shards beside a single file, and an index that names files elsewhere."""
    is_single = (folder / SINGLE).is_file()
    if not (folder / INDEX).is_file():
        return [folder / SINGLE] if is_single else []
    if is_single:
        raise WeightsError(
            f"{name} holds two sets of weights: {SINGLE}, and the shards of {INDEX}",
            remedy="remove one of them",
        )
    given = read_json(folder / INDEX).get("weight_map")
    files = sorted({str(file) for file in given.values()}) if isinstance(given, dict) else []
    elsewhere = [file for file in files if PurePosixPath(file).name != file or "\\" in file]
    gone = [file for file in files if not (folder / file).is_file()]
    if not files or elsewhere or gone:
        what = f"files elsewhere: {some(elsewhere)}" if elsewhere else f"files that are not there: {some(gone)}"
        raise WeightsError(
            f"{INDEX} in {name} names {what if files else 'no files'}",
            remedy="save the model again: model.save_pretrained(folder), or fetch all of it",
        )
    return [folder / file for file in files]


def _dtypes(file: Path) -> Iterator[tuple[str, str]]:
    """Name and dtype of each tensor, from the file's header."""
    try:
        with system_errors("read", file), safe_open(file, framework="pt", device="cpu") as opened:
            names = opened.keys()
            for tensor in names:
                yield tensor, opened.get_slice(tensor).get_dtype()
    except SafetensorError as error:
        raise WeightsError(
            f"{file} is not a complete safetensors file: {error}", remedy="save or fetch it again"
        ) from error


def _quantized(config: Any) -> str | None:
    """The method that a config.json names, at its top or of a part of the model; None where it names none."""
    if not isinstance(config, dict):
        return None
    own = config.get("quantization_config")
    if isinstance(own, dict):
        return f"quantization_config of {own.get('quant_method', 'some method')}"
    return next((found for part in config.values() if (found := _quantized(part)) is not None), None)


def _is_quantized(name: str, why: str) -> WeightsError:
    return WeightsError(
        f"the weights in {name} are quantized ({why}), and only plain ones are loaded",
        remedy="dequantize the model where its packages are: model.dequantize(), then save_pretrained(NEW); or name the "
        "checkpoint that it was made from",
    )


def read_json(path: Path) -> Any:
    """What a JSON file holds, {} where there is none or no object in it: what opens it later says what is wrong with it."""
    if not path.is_file():
        return {}
    try:
        with system_errors("read", path):
            found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
