"""What softlabels ships under a class path, and what those were called before: one thing has one name in every specification.

A recipe may write a short name (`softlabels.models.MLP`) or the module that defines it (`softlabels.models.mlp.MLP`); what is
written down and hashed is always the short one, which stays when the code moves to another module. Version 0.1 installed as
`pipeline`; its names stay readable. Neighbour: `objects` imports what a class path names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# The name that is written down -> the module that defines the object.
SHIPPED = {
    "softlabels.models.Automatizer": "softlabels.recipes.chunker.Automatizer",
    "softlabels.models.Biased": "softlabels.recipes.biased.Biased",
    "softlabels.models.CausalLM": "softlabels.models.causal_lm.CausalLM",
    "softlabels.models.Chunker": "softlabels.recipes.chunker.Chunker",
    "softlabels.models.ConvNet": "softlabels.models.cnn.ConvNet",
    "softlabels.models.Denoiser": "softlabels.recipes.diffusion.Denoiser",
    "softlabels.models.Detector": "softlabels.recipes.detect_model.Detector",
    "softlabels.models.DiffusionSampler": "softlabels.recipes.diffusion.DiffusionSampler",
    "softlabels.models.FrameNet": "softlabels.recipes.frame_net.FrameNet",
    "softlabels.models.GraphNet": "softlabels.recipes.graph_net.GraphNet",
    "softlabels.models.ImageClassifier": "softlabels.models.hf.ImageClassifier",
    "softlabels.models.LeNet1990": "softlabels.recipes.lenet_1990.LeNet1990",
    "softlabels.models.MLP": "softlabels.models.mlp.MLP",
    "softlabels.models.MixtureSampler": "softlabels.recipes.mixture.MixtureSampler",
    "softlabels.models.PendulumController": "softlabels.recipes.pendulum.PendulumController",
    "softlabels.models.SequenceClassifier": "softlabels.models.hf.SequenceClassifier",
    "softlabels.models.TwoSteps": "softlabels.recipes.diffusion.TwoSteps",
    "softlabels.models.narrowed": "softlabels.models.narrow.narrowed",
    "softlabels.student.augment.jitter": "softlabels.recipes.augment.jitter",
    "softlabels.student.augment.mask_tokens": "softlabels.recipes.augment.mask_tokens",
    "softlabels.transfer.audio": "softlabels.transfer.sound.audio",
    "softlabels.transfer.centred": "softlabels.recipes.letter_rows.centred",
    "softlabels.transfer.clip_frames": "softlabels.recipes.clip_frames.clip_frames",
    "softlabels.transfer.graph_rows": "softlabels.recipes.graph_rows.graph_rows",
    "softlabels.transfer.image": "softlabels.transfer.prepare.image",
    "softlabels.transfer.letter_rows": "softlabels.recipes.letter_rows.letter_rows",
    "softlabels.transfer.log_mel": "softlabels.recipes.log_mel.log_mel",
    "softlabels.transfer.noise": "softlabels.recipes.noise.noise",
    "softlabels.transfer.noisy_digits": "softlabels.recipes.noise.noisy_digits",
    "softlabels.transfer.pendulum": "softlabels.recipes.pendulum.pendulum",
    "softlabels.transfer.recall_rows": "softlabels.recipes.recall_rows.recall_rows",
    "softlabels.transfer.resize": "softlabels.transfer.pictures.resize",
    "softlabels.transfer.scale": "softlabels.transfer.prepare.scale",
    "softlabels.transfer.sequences.token_rows": "softlabels.transfer.sequences.token_rows",
    "softlabels.transfer.stack": "softlabels.transfer.prepare.stack",
    "softlabels.transfer.table": "softlabels.transfer.tabular.table",
    "softlabels.transfer.tokenize": "softlabels.transfer.text.tokenize",
    "softlabels.transfer.vector": "softlabels.transfer.prepare.vector",
    "softlabels.transfer.vision.process": "softlabels.transfer.vision.process",
    "softlabels.transfer.wrong_labels": "softlabels.recipes.wrong_labels.wrong_labels",
}
# torch's own optimizers and schedules of numbers, which anybody's recipe may name: they run nothing but torch.
OF_TORCH = frozenset(
    [
        f"torch.optim.{name}"
        for name in ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")
    ]
    + [
        f"torch.optim.lr_scheduler.{name}LR"
        for name in (
            "Constant",
            "CosineAnnealing",
            "Cyclic",
            "Exponential",
            "Linear",
            "MultiStep",
            "OneCycle",
            "Polynomial",
            "Step",
        )
    ]
)
_SHORT = {long: short for short, long in SHIPPED.items()} | {
    "softlabels.models.biased.Biased": "softlabels.models.Biased",  # where 0.2 had it
}
# What version 0.1 called them. Closed: nothing is added here.
OF_0_1 = {
    "pipeline.models.biased.Biased": "softlabels.models.Biased",
    "pipeline.models.causal_lm.CausalLM": "softlabels.models.CausalLM",
    "pipeline.models.cnn.ConvNet": "softlabels.models.ConvNet",
    "pipeline.models.hf.ImageClassifier": "softlabels.models.ImageClassifier",
    "pipeline.models.hf.SequenceClassifier": "softlabels.models.SequenceClassifier",
    "pipeline.models.mlp.MLP": "softlabels.models.MLP",
    "pipeline.student.augment.jitter": "softlabels.student.augment.jitter",
    "pipeline.student.augment.mask_tokens": "softlabels.student.augment.mask_tokens",
    "pipeline.transfer.prepare.image": "softlabels.transfer.image",
    "pipeline.transfer.prepare.scale": "softlabels.transfer.scale",
    "pipeline.transfer.prepare.stack": "softlabels.transfer.stack",
    "pipeline.transfer.prepare.vector": "softlabels.transfer.vector",
    "pipeline.transfer.sequences.token_rows": "softlabels.transfer.sequences.token_rows",
    "pipeline.transfer.text.tokenize": "softlabels.transfer.tokenize",
    "pipeline.transfer.vision.process": "softlabels.transfer.vision.process",
}


# Settings that came after a section did, each with the value that says what was done before.
_LATER: dict[str, dict[str, Any]] = {
    "training": {
        "class_weights": None,
        "members": None,
        "weights": None,
        "block": None,
        "targets": {},
        "positions": None,
        "tail_bound": False,
    },
    "transfer_set": {
        "missing": "refuse",
        "mixed_images": False,
        "sample_by": None,
        "key_salt": None,
        "label_as": "class",
        "positions": None,
        "split_column": None,
    },
    "sequences": {"bos": "auto"},
}


def as_before(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A section's settings by name, without those that came later and say what was done before: as earlier runs tell them."""
    later = _LATER[section]
    return {
        name: as_before(name, value) if name in _LATER and isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in later or later[name] != value
    }


def short(path: str) -> str:
    """The name under which the object at `path` is written down, where softlabels ships it; else `path`."""
    return _SHORT.get(path, path)


def renamed(standing: Any, ours: Any = None) -> Any:
    """JSON values that an earlier version wrote, with today's names in place of its own, to be compared with `ours`.

    A name that `ours` uses too is kept: there it means a user's own package `pipeline` (see `objects.canonical`).
    """
    return _renamed(standing, OF_0_1.keys() - set(_texts(ours)))


def _renamed(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(item, names) for item in value]
    return OF_0_1[value] if isinstance(value, str) and value in names else value


def _texts(value: Any) -> Iterator[str]:
    """Every string among JSON values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
