"""`ByServer`: the stores of what a served teacher says of rows of tokens, and what is asked of it first: who it is, and a few
rows of each split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import msgspec
import numpy as np
from torch import Tensor

from softlabels.errors import ConfigError
from softlabels.jobs.labelled import Labelled
from softlabels.jobs.watch import Watch
from softlabels.labels.encoding import TopkEncoding
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

_OWN = ("encoding", "k", "tail")
_BLOCK = 1024


def served_encoding(labels: LabelsConfig) -> TopkEncoding:
    """How its labels are kept. Raises `ConfigError` for settings of others."""
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
            remedy="say labels: {encoding: topk, k: ...}, and nothing else of how they are kept",
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

    def pilot(self, target: str) -> Iterable[Tensor]:
        """None: its tails have no basis."""
        return ()

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
    encoding, first = served_encoding(labels), next(iter(rows.values()))
    if first.sequence is None:
        raise ConfigError(
            f"the rows of {first.name} are no rows of tokens, which are what a served teacher takes",
            remedy="prepare them with transfer_set.sequences: {tokenizer: ..., length: ...}, the teacher's own tokenizer",
        )
    encoding.check(1, first.sequence.classes)
    teacher.meet(first.sequence, encoding, max(map(_longest, rows.values())))
    for split, each in rows.items():
        teacher.kept[split] = teacher.ask_sentinels(each)
    classes = {split: {"": first.sequence.classes} for split in rows}
    return ByServer(rows, folders, classes, teacher, {"": encoding}, watch, labels)


def _longest(rows: TransferRows) -> int:
    """The most tokens of a row, looked for a block of rows at a time."""
    blocks = (
        np.asarray(rows.inputs[start : start + _BLOCK, 1], np.int64) for start in range(0, len(rows.keys), _BLOCK)
    )
    return max(int((block > 0).sum(axis=1).max()) for block in blocks)
