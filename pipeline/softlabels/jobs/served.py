"""`ByServer`: the stores of what a served teacher says of rows of tokens, and what is asked of it first: who it is, and a few
rows of each split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import msgspec
import numpy as np

from softlabels.errors import ConfigError
from softlabels.jobs.labelled import Labelled
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import Encoding
from softlabels.labels.settings import EncodingSettings
from softlabels.labels.topk_known import known_encoding
from softlabels.store.json_files import read_json
from softlabels.store.paths import PLAN
from softlabels.store.spec import About, Plan
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Folder
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


@dataclass(frozen=True)
class ByServer(Labelled[Served]):
    """Stores of what a server says."""

    def about(self, split: str) -> About:
        """With what it says of the sentinels."""
        kept = tuple(self.teacher.kept[split].tolist()) or msgspec.UNSET
        return msgspec.structs.replace(super().about(split), sentinels=kept)

    def compare(self, split: str, writer: StoreWriter) -> None:
        """What the server says of the sentinels too, against what the store was begun with, which counts from here on. Raises
        `OtherLogits`.
        """
        super().compare(split, writer)
        kept = read_json(writer.folder, PLAN, Plan).about.sentinels
        if kept is not msgspec.UNSET:
            before, whose = np.array(kept, np.float64), f"that {writer.folder} was begun with"
            self.teacher.require_same(self.rows[split], before, self.teacher.kept[split], whose)
            self.teacher.kept[split] = before

    def announce(self, writers: Mapping[str, StoreWriter], free: int | None) -> None:
        """Who is asked too."""
        self.watch.say(self.teacher.words)
        super().announce(writers, free)


def by_server(
    teacher: Served, rows: Mapping[str, TransferRows], labels: LabelsConfig, folders: Mapping[str, Folder], watch: Watch
) -> ByServer:
    """The same, once the server has said who it is and what it says of a few rows of each split. Raises as `Served` does."""
    encoding, first = served_encoding(labels, logits=teacher.head is not None), next(iter(rows.values()))
    if first.sequence is None:
        raise ConfigError(
            f"the rows of {first.name} are no rows of tokens, which are what a served teacher takes",
            remedy="prepare them with transfer_set.sequences: {tokenizer: ..., length: ...}, the teacher's own tokenizer",
        )
    count = first.sequence.classes
    if teacher.head is not None:
        count = min(count, teacher.head.classes)
        for each in rows.values():
            require_known_tokens(each.name, each.inputs, first.sequence, count)
    encoding.check(1, count)
    teacher.meet(first.sequence, encoding, max(map(_longest, rows.values())))
    for split, each in rows.items():
        teacher.kept[split] = teacher.ask_sentinels(each)
    classes = {split: {"": count} for split in rows}
    return ByServer(rows, folders, classes, teacher, {"": encoding}, watch, labels)


def _longest(rows: TransferRows) -> int:
    """The most tokens of a row, looked for a block of rows at a time."""
    blocks = (
        np.asarray(rows.inputs[start : start + _BLOCK, 1], np.int64) for start in range(0, len(rows.keys), _BLOCK)
    )
    return max(int((block > 0).sum(axis=1).max()) for block in blocks)
