"""The digits of `data/` in small: an imaginary teacher of two members that know the mean digit of each class, and a run of the
students that a recipe trains from it in a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from msgspec.structs import replace

from softlabels.labels.encoding import DenseEncoding
from softlabels.store import StoreWriter
from softlabels.store.digest import keys_digest
from softlabels.store.rules import spec_columns
from softlabels.store.spec import Cut, LabelSpace, MemberSpec, Preprocessing, Spec, TeacherSpec, TransferSpec
from softlabels.transfer import TransferSetConfig, load_transfer_set
from softlabels_stages import train_student
from softlabels_stages.schema import typed

ROOT = Path(__file__).parent.parent.parent
CLASSES = 10


def recipe(**changes: Any) -> dict[str, Any]:
    """The recipe of the digits, with students of a few epochs."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "stages/softlabels_stages/configs/digits.yaml").read_text())
    made["transfer_set"]["source"] = str(ROOT / "data" / "digits")
    made["training"] |= {"epochs": 3, "seeds": [0], "device": "cpu"}
    return {name: made[name] for name in ("name", "transfer_set", "student", "training")} | changes


def write_store(
    root: Path, *, names: tuple[str, ...] = (), members: tuple[str, ...] = ("near", "far"), teacher: str = "centres"
) -> Path:
    """Splits train and test of the digits; `names` of classes, `members` and `teacher` may be hostile."""
    config = typed(TransferSetConfig, recipe()["transfer_set"], where="digits")
    splits = {split: load_transfer_set(config, split, cache=root.parent / "cache") for split in ("train", "test")}
    inputs, labels = np.array(splits["train"].inputs).reshape(-1, 64), np.array(splits["train"].labels)
    centres = np.stack([inputs[labels == label].mean(0) for label in range(CLASSES)])
    for split, rows in splits.items():
        apart = ((np.array(rows.inputs).reshape(-1, 1, 64) - centres) ** 2).sum(-1)
        spec = Spec(
            teacher=TeacherSpec(
                name=teacher,
                precision="float32",
                members=tuple(MemberSpec(model=name, weights="") for name in members),
            ),
            transfer_set=TransferSpec(
                name=rows.name, split=split, rows=len(apart), content_keys=keys_digest(rows.keys)
            ),
            one_label_space=LabelSpace(classes=CLASSES, names=names or tuple(map(str, range(CLASSES)))),
            preprocessing=Preprocessing(function="softlabels.transfer.scale", arguments={"divisor": 16}),
            one_encoding=DenseEncoding(),
            layout="zarr",
            cut=Cut(rows_per_shard=512, rows_per_chunk=128),
            columns=(),
        )
        with StoreWriter(root / split, replace(spec, columns=spec_columns(spec, None))) as writer:
            for shard in writer.pending:
                part = slice(*writer.rows_of(shard))
                logits = np.stack([-apart[part], 2 - apart[part] / 4], axis=1).astype(np.float32)
                writer.write_logits(shard, keys=rows.keys[part], labels=rows.labels[part], logits=logits)
            writer.seal()
    return root


def train(work: Path, **changes: Any) -> Path:
    """A run over the store in `work`, by the recipe that this writes beside it."""
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe(**changes)))
    words = [f"--config={work}/recipe.yaml", f"--store={work}/store", f"--out={work}/run"]
    assert train_student.main(words) == 0
    return work / "run"
