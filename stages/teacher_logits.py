"""Run the teacher once over every split of the transfer set and store its logits, one store a split: STORE/train, ...

The same command goes on where it was stopped, however it was stopped; a store that was begun with another recipe is
refused. When it is done, neither the teacher nor its weights are needed again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipeline.errors import ClassMismatch
from pipeline.store.dense_spec import dense_spec, prepared_by
from pipeline.store.root import require_root, write_root
from pipeline.store.spec import About, Spec
from pipeline.store.writer import StoreWriter, require_room
from pipeline.teacher.config import LabelsConfig, TeacherConfig
from pipeline.teacher.ensemble import Ensemble, load_ensemble
from pipeline.teacher.label import label_rows
from pipeline.transfer import TransferRows, TransferSetConfig, load_transfer_set
from stages.recipe import parse
from stages.run import command, program, should_stop


@dataclass(frozen=True)
class TeacherLogits:
    """Arguments of teacher-logits."""

    teacher: TeacherConfig
    transfer_set: TransferSetConfig
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    store: str = "stores/digits"  # where the stores go, a folder a split


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Label every split."""
    args = parse(argv, TeacherLogits, stage="teacher-logits", doc=__doc__, positional=("store",))
    root = Path(args.store)
    require_root(root, tuple(args.transfer_set.splits))
    ensemble = load_ensemble(args.teacher)
    splits = [load_transfer_set(args.transfer_set, split) for split in args.transfer_set.splits]
    with ExitStack() as stack:
        about = About(
            source=splits[0].source, teacher_licence=args.teacher.licence, transfer_licence=args.labels.licence
        )
        writers = [
            stack.enter_context(
                StoreWriter(
                    root / rows.split, store_spec(args, rows, ensemble), about=about, environment=ensemble.environment()
                )
            )
            for rows in splits
        ]
        announce(args.teacher.name, splits, writers)
        for rows, writer in zip(splits, writers, strict=True):
            if not writer.sealed:
                _label(rows, ensemble, writer)
    write_root(root)
    recipe = "".join(f" {word}" for word in argv or sys.argv[1:] if word.startswith("--config="))
    print(f"sealed: {root} (look: {program()} info {root}; train: {program()} train-student{recipe} --store={root})")
    return 0


def store_spec(args: TeacherLogits, rows: TransferRows, ensemble: Ensemble) -> Spec:
    """What decides the bytes of one split's store. Raises `TeacherError`, `ClassMismatch`."""
    classes = ensemble.check_sentinels(rows.inputs)
    if rows.class_names is not None and len(rows.class_names) != classes:
        raise ClassMismatch(
            f"the teacher has {classes} classes and the transfer set {rows.name} {len(rows.class_names)}",
            remedy="give the teacher of this label space, or name its classes in transfer_set.classes",
        )
    ensemble.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    labels, transfer_set = args.labels, args.transfer_set
    return dense_spec(
        teacher=ensemble.spec,
        name=rows.name,
        split=rows.split,
        revision=rows.revision,
        key=transfer_set.key,
        keys=rows.keys,
        classes=classes if rows.class_names is None else rows.class_names,
        preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
        layout=labels.layout,
        compression=labels.compression,
        reduce=labels.reduce,
        embed=rows.inputs if labels.inputs == "embed" else None,
        rows_per_shard=labels.rows_per_shard,
        rows_per_chunk=labels.rows_per_chunk,
        teacher_batch=args.teacher.batch_size,
    )


def announce(teacher: str, splits: Sequence[TransferRows], writers: Sequence[StoreWriter]) -> None:
    """Say what the pass will take, and raise `DiskFull` before it when the disk cannot hold it."""
    spec = writers[0].spec
    rows = ", ".join(f"{each.split} {len(each.keys):,}" for each in splits)
    print(
        f"{teacher}: {len(spec.teacher.members)} members in {spec.teacher.precision}, {spec.label_space.classes} classes; "
        f"{splits[0].name}: {rows} rows"
    )
    free = require_room(writers)
    left = sum(len(writer.pending) for writer in writers)
    shards = sum(writer.spec.shards for writer in writers)
    need = sum(writer.bytes_left for writer in writers)
    print(f"to write: {left} of {shards} shards, {need:,} bytes; the disk has {free:,} free", flush=True)


def _label(rows: TransferRows, ensemble: Ensemble, writer: StoreWriter) -> None:
    """One split, with progress: a bar on a terminal, and one line after the first shard wherever it goes."""
    pending = sum(len(writer.spec.shard_rows(shard)) for shard in writer.pending)
    first = len(writer.spec.shard_rows(writer.pending[0])) if writer.pending else 0
    began, seen = time.monotonic(), 0
    with tqdm(total=pending, desc=rows.split, unit="row", unit_scale=True, disable=None) as bar:

        def progress(count: int) -> None:
            nonlocal seen
            seen += count
            bar.update(count)
            if seen == first and first < pending:
                rate = seen / max(time.monotonic() - began, 1e-9)
                left = (pending - seen) / rate
                bar.write(f"{rows.split}: first shard at {rate:,.0f} rows/s, about {left:,.0f} s left", file=sys.stdout)

        manifest = label_rows(rows, ensemble, writer, should_stop=should_stop, progress=progress)
    print(f"{rows.split}: {manifest.spec.rows:,} rows, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}")


if __name__ == "__main__":
    sys.exit(main())
