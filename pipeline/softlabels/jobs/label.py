"""`label`: a teacher's logits of a transfer set, one store a split; and what filling stores takes, whichever teacher it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor
from tqdm import tqdm

from softlabels.errors import ClassMismatch, OtherRows
from softlabels.jobs.splits import load_rows, say_how_splits_relate
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.jobs.words import counted
from softlabels.labels.encoding import Encoding, TopkEncoding
from softlabels.labels.fidelity import mass_warning
from softlabels.labels.tail_basis import find_basis
from softlabels.labels.topk import check_encoding
from softlabels.models.alone import is_padded
from softlabels.report.table import as_text, fidelity_table
from softlabels.store.basis import Basis, resumable_basis
from softlabels.store.commit import is_bound
from softlabels.store.dense_spec import prepared_by, store_spec
from softlabels.store.markdown import without_folders
from softlabels.store.root import require_root, write_root
from softlabels.store.same_plan import kept_about, require_same_plan
from softlabels.store.spec import MANIFEST, PLAN, About, Manifest, Plan, Spec, plan_of, read_json
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.local import LocalFolder, folder_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.pilot import Pilot, needs_basis, pilot_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.sentinels import check_sentinels, token_classes
from softlabels.teacher.teacher import Teacher
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import as_stored, require_known_tokens

SHOWN = 4.0  # the highest temperature of the table that is said; the store's card has them all
Rows = TypeVar("Rows")
MakeSpec = Callable[[Basis | None], Spec]


def label(
    transfer_set: TransferSetConfig | TransferRows | Sequence[TransferRows],
    teacher: Ensemble,
    labels: LabelsConfig,
    store: str | Path | LocalFolder,
    *,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Run a teacher over the splits of a transfer set and store its logits, one store a split: STORE/train, ... .

    ::

        rows = TransferSetConfig(name="digits", source="./data/digits", inputs=("image",), label="label", prepare=scaled)
        label(rows, Ensemble.of([model]), LabelsConfig(inputs="embed"), "stores/digits")["train"].digest

    The same call goes on where it was stopped, however it was stopped. When it is done, the teacher is not needed again.

    Args:
        transfer_set: what it is; or its prepared rows, inputs (R, ...), of one split or of several.
        teacher: models that take a batch of inputs (B, ...) and give logits (B, C), of rows of L tokens (B, L - 1, V).
        labels: how the stores are written: encoding, layout, cut.
        store: the folder for the stores; a new one, or one that the same call began.
        watch: is told what is done, and asked whether to stop.

    Returns:
        The manifest of each split's store: digest, fidelity, specification.

    Raises:
        TeacherError, LogitsError, ClassMismatch: the teacher's outputs for a row depend on its batch, are no logits, or are of
            other classes; nothing is written.
        SpecMismatch and its kinds, OtherLabels: the store was begun with other rows, weights or settings.
        Interrupted: `watch` asked to stop; the same call goes on. DiskFull, StorageError: of the disk.
    """
    root = folder_of(store)
    splits = _rows_of(transfer_set, root, watch)
    first = next(iter(splits.values()))
    encoding = labels.encoding_of(len(teacher.models))
    teacher.expect(first.sequence)
    classes = {split: checked_classes(each, teacher, encoding) for split, each in splits.items()}
    if isinstance(encoding, TopkEncoding):
        check_encoding(encoding, 1 if encoding.reduce == "geometric" else len(teacher.models), min(classes.values()))
    made: dict[str, MakeSpec] = {
        split: partial(_spec, each, teacher, labels, encoding, classes[split]) for split, each in splits.items()
    }
    folders = {split: root.within(split) for split in splits}

    def pilot() -> Iterable[Tensor]:
        size = counted(len(chosen := pilot_rows(first)), "row")
        if first.sequence is not None:
            size += f" ({int(alignment(np.array(first.inputs[chosen])).mask.sum()):,} positions)"
        watch.say(f"pilot: {size} of {first.split}, for the shape of the tails")
        return Pilot(first, teacher, reduce=encoding.reduce)

    if needs_basis(encoding):
        for split, folder in folders.items():
            _require_same_tails(folder, made[split], (1 + encoding.rank, classes[split]))
    basis = shared_basis(folders, encoding, classes, pilot)
    about = About(
        source=without_folders(first.source), teacher_licence=teacher.licence, transfer_licence=labels.licence
    )
    specs = {split: make(basis) for split, make in made.items()}
    with ExitStack() as stack:
        writers = {}
        for split, each in splits.items():
            try:
                writer = StoreWriter(
                    folders[split], specs[split], basis=basis, about=about, environment=teacher.environment()
                )
            except OtherRows as error:
                raise explained(error, folders[split], each.keys) from error
            writers[split] = stack.enter_context(writer)
            for line in kept_about(folders[split], about):
                watch.say(line)
            check_committed(writer, each, teacher)
        _announce(splits, writers, watch)
        found = {}
        for split, writer in writers.items():
            is_new = not writer.sealed
            found[split] = fill(split, splits[split], teacher, writer, watch)
            if is_new:
                _say_what_was_made(split, found[split], writer.said, watch)
    write_root(root)
    return found


def fill(split: str, rows: Rows, teacher: Teacher[Rows], writer: StoreWriter, watch: Watch) -> Manifest:
    """Label a split and seal its store, with a bar on a terminal, and one line after the first shard."""
    shards = [len(writer.spec.shard_rows(shard)) for shard in writer.pending]
    pending, first, began, seen = sum(shards), sum(shards[:1]), time.monotonic(), 0
    with tqdm(total=pending, desc=split, unit="row", unit_scale=True, disable=None) as bar:

        def progress(count: int) -> None:
            nonlocal seen
            seen += count
            bar.update(count)
            if seen == first < pending:
                rate = seen / max(time.monotonic() - began, 1e-9)
                with bar.external_write_mode():
                    watch.say(
                        f"{split}: first shard at {rate:,.0f} rows/s, about {(pending - seen) / rate:,.0f} s left"
                    )

        return label_rows(rows, teacher, writer, should_stop=watch.should_stop, progress=progress)


def shared_basis(
    folders: Mapping[str, LocalFolder],
    encoding: Encoding,
    classes: Mapping[str, int],
    pilot: Callable[[], Iterable[Tensor]],
) -> Basis | None:
    """The prior and basis of the tails, one for all splits: that of a store that is begun, else found now in the `pilot`, whose
    logits are (n, M, C). None where the tails have none.

    Raises `SpecMismatch` where a store that is begun has tails of another rank.
    """
    if not needs_basis(encoding):
        return None
    for split, folder in folders.items():
        found = resumable_basis(folder, rank=encoding.rank)
        if found is not None and found.shape[1] == classes[split]:
            return found
    basis: Basis = find_basis(pilot(), encoding.rank)
    return basis


def _require_same_tails(store: LocalFolder, made: MakeSpec, shape: tuple[int, int]) -> None:
    """Raise `SpecMismatch` where `store` holds labels without such tails: before any are computed for it."""
    if is_begun(store):
        standing = read_json(store, PLAN, Plan)
        if standing.spec.basis_shape != shape:
            require_same_plan(plan_of(made(np.zeros(shape, np.float16))), standing, str(store))


def is_begun(store: LocalFolder) -> bool:
    """Whether a store is there that binds whoever goes on with it: sealed, or with committed shards."""
    return store.exists(PLAN) and (store.exists(MANIFEST) or is_bound(store))


def _rows_of(
    given: TransferSetConfig | TransferRows | Sequence[TransferRows], root: LocalFolder, watch: Watch
) -> dict[str, TransferRows]:
    """The rows of each split. Those of tokens begin as those of the splits below `root` that are begun already."""
    if not isinstance(given, TransferSetConfig):
        splits = {rows.split: rows for rows in ([given] if isinstance(given, TransferRows) else given)}
        require_root(root, tuple(splits))
        return splits
    require_root(root, tuple(given.splits))
    begun = next(filter(is_begun, map(root.within, given.splits)), None)
    config = given if begun is None else as_stored(given, read_json(begun, PLAN, Plan).spec.preprocessing)
    return {split: load_rows(config, split, watch) for split in config.splits}


def checked_classes(rows: TransferRows, teacher: Ensemble, encoding: Encoding) -> int:
    """C, of a teacher whose logits do not depend on its batches.

    Raises `TeacherError`, `LogitsError`, `ClassMismatch`; `LabelError` of a token that has no output.
    """
    if rows.sequence is not None:
        require_known_tokens(rows.name, rows.inputs, rows.sequence, token_classes(teacher, rows.inputs))
    classes = check_sentinels(
        teacher,
        rows.inputs,
        reduce=encoding.reduce,
        labels=rows.labels,
        names=rows.class_names,
        padded=is_padded(rows.prepare.class_path),
    )
    if classes < 2:
        raise ClassMismatch(
            "the teacher has one output, and a distribution has two classes or more",
            remedy="of a score z for yes or no make the logits (0, z)",
        )
    if rows.class_names is not None and len(rows.class_names) != classes:
        raise ClassMismatch(
            f"the teacher has {classes} classes and the transfer set {rows.name} {len(rows.class_names)}",
            remedy="give the teacher of this label space, or name its classes in transfer_set.classes",
        )
    teacher.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    return classes


def _spec(
    rows: TransferRows, teacher: Ensemble, labels: LabelsConfig, encoding: Encoding, classes: int, basis: Basis | None
) -> Spec:
    """What decides the bytes of one split's store."""
    sequence = rows.sequence
    return store_spec(
        encoding,
        teacher=teacher.spec,
        name=rows.name,
        split=rows.split,
        revision=rows.revision,
        key=rows.key,
        key_rule=rows.key_rule,
        keys=rows.keys,
        classes=classes if rows.class_names is None else rows.class_names,
        preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
        layout=labels.layout,
        compression=labels.compression,
        basis=basis,
        positions=None if sequence is None else sequence.positions,
        vocabulary=None if sequence is None else sequence.below(classes).vocabulary,
        # Rows of tokens that are not packed keep only the positions that they have.
        ragged=sequence is not None and not rows.prepare.init_args.get("pack", True) and labels.layout == "arrow",
        embed=rows.inputs if labels.inputs == "embed" else None,
        rows_per_shard=labels.rows_per_shard,
        rows_per_chunk=labels.rows_per_chunk,
        teacher_batch=teacher.batch_size,
    )


def _announce(splits: Mapping[str, TransferRows], writers: Mapping[str, StoreWriter], watch: Watch) -> None:
    """Say what the pass will take, and raise `DiskFull` before it when the disk cannot hold it."""
    spec, (first, *_) = next(iter(writers.values())).spec, splits.values()
    members = counted(len(spec.teacher.members), "member")
    rows = ", ".join(f"{split} {len(each.keys):,}" for split, each in splits.items())
    watch.say(
        f"{spec.teacher.name}: {members} in {spec.teacher.precision}, {spec.label_space.classes} classes; "
        f"{first.name}: {rows} rows"
    )
    say_how_splits_relate(splits, spec.label_space.names, watch, tokens=first.sequence is not None)
    if first.sequence is not None and first.sequence.bos:
        watch.say(
            f"every text, and every row that goes on with one, begins with {first.sequence.bos!r} (transfer_set.sequences.bos)"
        )
    free = require_room(writers.values())
    left = sum(len(writer.pending) for writer in writers.values())
    shards = sum(writer.spec.shards for writer in writers.values())
    need = sum(writer.bytes_left for writer in writers.values())
    watch.say(f"to write: {left} of {shards} shards, at most {need:,} bytes; the disk has {free:,} free")


def _say_what_was_made(split: str, manifest: Manifest, said: Sequence[str], watch: Watch) -> None:
    """Rows, bytes and digest of a store, what its labels are, and what encoding them lost, a line a temperature."""
    size, encoding = counted(manifest.spec.rows, "row"), manifest.spec.encoding
    watch.say(f"{split}: {size}, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}")
    for line in said:
        watch.say(f"{split}: {line}")
    if isinstance(encoding, TopkEncoding):
        table = as_text(fidelity_table(manifest.fidelity, up_to=SHOWN))
        watch.say(f"{manifest.bytes_per_position:.1f} bytes a position; KL(exact || stored) in nats:\n{table}")
        if warning := mass_warning(manifest.fidelity, encoding.tail):
            watch.say(f"{split}: {warning}")
