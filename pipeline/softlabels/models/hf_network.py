"""A transformers model from a folder, a hub id or a config, with everything refused that would end in noise. Extra `[hf]`.

What it takes and gives as a model of ours is `hf`'s business.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softlabels.errors import ConfigError, SoftLabelsError, WeightsError, some
from softlabels.models.hf_facts import SOFTMAX, head_of, read_json, require_plain_weights, require_whole
from softlabels.objects import require_extra
from softlabels.transfer.pretrained import matching, one_line, pretrained_folder, quiet

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
Options = dict[str, Any]
# Any token will do that no text ends with: what the mask says is padding becomes it.
PAD_REMEDY = (
    "give init_args.config: {pad_token_id: ID}, a token of the model that ends no text, such as the tokenizer's padding"
)


def new_network(auto: str, options: Options, classes: int | None, *, labelled: bool = True) -> nn.Module:
    """An untrained model of the architecture `options["model_type"]`; `labelled`: it has a head of `classes`.

    Raises `ConfigError`.
    """
    kind = options.pop("model_type", None)
    if not isinstance(kind, str) or (labelled and classes is None):
        example, classes_too = ("distilbert", ", and classes") if labelled else ("gpt2", "")
        raise ConfigError(
            f"no model is named, and {'classes' if isinstance(kind, str) else 'config.model_type'} is missing",
            remedy=f"give model (a folder or hub id), or config with a model_type such as {example}{classes_too}",
        )
    head = {"num_labels": classes} if labelled else {}
    with _building(f"{kind} with {options}") as transformers:
        _require_known(options, transformers.AutoConfig.for_model(kind), kind)
        config = transformers.AutoConfig.for_model(kind, **options, **head)
        if labelled:
            head_of(config, kind)
        network: nn.Module = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    return network.float().train()


def pretrained_network(
    auto: str,
    name: str,
    options: Options,
    classes: int | None,
    revision: str | None,
    *,
    labelled: bool = True,
    places: Options | None = None,
) -> tuple[nn.Module, set[str]]:
    """The model of a folder or hub id in float32, and the names of its tensors that the checkpoint gives no values for.
    `places`: see `places_of`.

    Raises:
        ConfigError: no such folder or hub id, unknown keys, an architecture that cannot be built.
        WeightsError: pickles, no weights, weights that are not plain (see `hf_facts`), or tensors of other shapes than the
            config's (but for a head of other classes).
        ClassMismatch: of a model that is `labelled`, a head of no known kind.
    """
    folder = pretrained_folder(name, revision=revision, patterns=("config.json", "adapter_config.json", *WEIGHTS))
    require_plain_weights(folder, name)
    _require_safetensors(folder, name)
    _refuse_kernels(read_json(folder / "config.json"), f"the config.json in {name}")
    with _building(name) as transformers:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        own = config.num_labels
        _require_known(options, config, name)
        for key, value in options.items():
            setattr(config, key, value)
        if classes is not None and classes != own:
            config.num_labels = classes
            if getattr(config, "problem_type", None) and "problem_type" not in options:
                config.problem_type = SOFTMAX  # a new head is one, where nobody says otherwise
        if labelled:
            head_of(config, name)
        config.return_dict = True  # outputs by name, whatever the checkpoint's config says
        network, found = getattr(transformers, auto).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are looked at below
            output_loading_info=True,
            **(places or {}),
        )
    missing, mismatched = set(found["missing_keys"]), {key: shapes for key, *shapes in found["mismatched_keys"]}
    require_whole(name, network, missing | set(mismatched), found["unexpected_keys"])
    _require_fit(name, network, missing, mismatched, own=own, wanted=config.num_labels)
    return network.float().train(), missing | set(mismatched)


def places_of(device_map: object, max_memory: Any, model: str | None) -> Options:
    """Where the layers of a checkpoint go, as `from_pretrained` takes it. Raises `ConfigError`, `MissingExtra`."""
    if device_map is None and max_memory is None:
        return {}
    if device_map is None or model is None:
        raise ConfigError(
            "device_map spreads a checkpoint, and no model is named"
            if model is None
            else "max_memory without device_map",
            remedy="give both, or neither",
        )
    require_extra("accelerate", extra="hf")
    given = dict(device_map) if isinstance(device_map, Mapping) else device_map
    return {"device_map": given} | ({} if max_memory is None else {"max_memory": dict(max_memory)})


def _require_safetensors(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"there is no config.json in {name}", remedy="name a folder that save_pretrained wrote, or a hub id"
        )
    if matching(folder, WEIGHTS):
        return
    pickles = ", ".join(path.name for path in matching(folder, PICKLES))
    what = f"only {pickles}: pickles, which can run code when they are opened" if pickles else "nothing of the kind"
    raise WeightsError(
        f"no model.safetensors in {name}, {what}",
        remedy="load it where you trust it, and save it again: model.save_pretrained(folder, safe_serialization=True)",
    )


def _refuse_kernels(found: object, where: str) -> None:
    """Refuse a config that names a repository of kernels, as in `attn_implementation`: where the package kernels is installed,
    transformers fetches and runs what stands there.
    """
    if kernels := _kernels(found):
        raise ConfigError(
            f"{where} refers to code on the hub: {some(kernels)}",
            remedy="take attn_implementation and the like out of it; code that a checkpoint or a recipe names is not run",
        )


def _kernels(found: object) -> list[str]:
    """The implementations that are hub ids, of the config and of those inside it."""
    if not isinstance(found, dict):
        return []
    own = [f"{key}: {value}" for key, value in found.items() if key.endswith("_implementation") and "/" in str(value)]
    return own + [one for value in found.values() for one in _kernels(value)]


def _require_known(options: Options, config: Any, where: str) -> None:
    """Refuse keys that the config lacks: transformers would keep them and ignore them; and kernels in those inside it."""
    _refuse_kernels(options, "init_args.config")
    known = {*config.to_dict(), *config.attribute_map} - {"num_labels", "architectures", "dtype", "model_type"}
    for key in options:
        if key == "num_labels":
            raise ConfigError("config.num_labels repeats classes", remedy="give only classes")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigError(
                f"the config of {where} has no {key!r}",
                remedy=f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
            )


def _require_fit(
    name: str, network: nn.Module, missing: set[str], mismatched: dict[str, list[Any]], *, own: int, wanted: int
) -> None:
    """Refuse a checkpoint of which nothing fits, or in which more than the head has another shape."""
    if missing >= set(dict(network.named_parameters())):
        raise WeightsError(
            f"no tensor in {name} fits {type(network).__name__}", remedy="name a checkpoint of this architecture"
        )
    others = [
        f"{key} ({list(given)}, the model has {list(has)})"
        for key, (given, has) in sorted(mismatched.items())  # transformers gives them in another order each time
        if not (own != wanted and list(given[:1]) == [own] and list(has[:1]) == [wanted] and given[1:] == has[1:])
    ]
    if others:
        raise WeightsError(
            f"tensors in {name} do not fit in shape: {some(others)}",
            remedy="drop from config what changes shapes; only a head for other classes may differ",
        )


@contextmanager
def _building(what: str) -> Iterator[Any]:
    """The package transformers, and what it raises inside the block as an error of ours: it cannot build `what`."""
    with quiet() as transformers:
        try:
            yield transformers
        except SoftLabelsError:
            raise
        except Exception as error:  # transformers and its architectures promise no class of errors
            others = "correct model, config, classes and device_map; code that stands in a checkpoint is not run"
            raise ConfigError(
                f"transformers cannot build {what}: {one_line(error)}",
                remedy=PAD_REMEDY if "adding_idx" in str(error) else others,
            ) from error
