"""What is asked of a served teacher before its pass over a transfer set: who the server is, and a few rows of each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import msgspec
import numpy as np

from softlabels.errors import ConfigError
from softlabels.labels.encoding import Encoding
from softlabels.labels.settings import EncodingSettings
from softlabels.labels.topk_known import known_encoding
from softlabels.store.json_files import read_json
from softlabels.store.paths import PLAN
from softlabels.store.spec import Plan
from softlabels.store.writer import StoreWriter
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows
from softlabels.transfer.sequences import require_known_tokens

_OWN = ("encoding", "k", "tail")
_BLOCK = 1024


def served_encoding(labels: LabelsConfig, *, logits: bool) -> Encoding:
    """How its labels are kept; `logits` says that it gives these, as models do. Raises `ConfigError` for settings of others."""
    if logits:
        if labels.targets is not None or labels.kind != "softmax":
            raise ConfigError(
                f"labels.{'kind' if labels.targets is None else 'targets'} is given, and a served teacher gives next tokens",
                remedy="leave it out",
            )
        return labels.encodings(1)[""]
    given = [
        field.name
        for field in fields(EncodingSettings)
        if field.name not in _OWN and getattr(labels, field.name) != field.default
    ]
    given += ["targets"] * (labels.targets is not None) + ["reduce"] * (labels.reduce != "none")
    if labels.encoding != "topk" or labels.tail not in ("lowrank", "uniform") or given:
        given += ["tail"] * (labels.tail not in ("lowrank", "uniform"))
        what = f"labels.{given[0]} is given" if given else f"labels.encoding is {labels.encoding}"
        raise ConfigError(
            f"{what}, and a served teacher gives the k largest log-probabilities at temperature 1 alone",
            remedy="say labels: {encoding: topk, k: ...}, and nothing else of how they are kept; or name the model's "
            "output_matrix, and have SGLang give hidden states",
        )
    if not 1 <= labels.k <= 1 << 16:
        raise ConfigError(f"labels.k is {labels.k}", remedy="give a number from 1 up to what the server gives")
    return msgspec.structs.replace(known_encoding(labels.k, 1.0), inputs=labels.inputs)


def meet_server(teacher: Served, rows: Mapping[str, TransferRows], encoding: Encoding) -> int:
    """C, once the server has said who it is and what it says of a few rows of each split. Raises as `Served` does."""
    first = next(iter(rows.values()))
    if first.sequence is None:
        raise ConfigError(
            f"the rows of {first.name} are no rows of tokens, which are what a served teacher takes",
            remedy="prepare them with transfer_set.sequences: {tokenizer: ..., length: ...}, the teacher's own tokenizer",
        )
    classes = first.sequence.classes
    if teacher.head is not None:
        classes = min(classes, teacher.head.classes)
        for each in rows.values():
            require_known_tokens(each.name, each.inputs, first.sequence, classes)
    encoding.check(1, classes)
    teacher.meet(first.sequence, encoding, max(map(_longest, rows.values())))
    for split, each in rows.items():
        teacher.kept[split] = teacher.ask_sentinels(each)
    return classes


def _longest(rows: TransferRows) -> int:
    """The most tokens of a row, looked for a block of rows at a time."""
    blocks = (
        np.asarray(rows.inputs[start : start + _BLOCK, 1], np.int64) for start in range(0, len(rows.keys), _BLOCK)
    )
    return max(int((block > 0).sum(axis=1).max()) for block in blocks)


def compare_served(writer: StoreWriter, rows: TransferRows, teacher: Served) -> None:
    """Hold what the server says of the sentinel rows against what the store was begun with, which counts from here on. Raises
    `OtherLogits`.
    """
    kept = read_json(writer.folder, PLAN, Plan).about.sentinels
    if kept is msgspec.UNSET:
        return
    before = np.array(kept, np.float64)
    teacher.require_same(rows, before, teacher.kept[rows.split], f"that {writer.folder} was begun with")
    teacher.kept[rows.split] = before
