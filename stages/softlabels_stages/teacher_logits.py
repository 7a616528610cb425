"""Run the teacher once over every split of the transfer set and store its logits, one store a split: STORE/train, ...

The same command goes on where it was stopped, however it was stopped; a store that was begun with another recipe is
refused. When it is done, neither the teacher nor its weights are needed again. With labels.encoding=topk the k largest
logits and the tail are kept, which serve any temperature from labels.min_temperature up.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from tqdm import tqdm

from softlabels.errors import ClassMismatch, OtherRows
from softlabels.labels.encoding import Encoding
from softlabels.models.alone import is_padded
from softlabels.report.table import as_text, fidelity_table
from softlabels.store.basis import Basis, resumable_basis
from softlabels.store.commit import is_bound
from softlabels.store.markdown import without_folders
from softlabels.store.new_spec import prepared_by
from softlabels.store.new_spec import store_spec as spec_of
from softlabels.store.root import require_root, write_root
from softlabels.store.same_plan import kept_about, require_same_plan
from softlabels.store.spec import MANIFEST, PLAN, About, Manifest, Plan, Spec, plan_of, read_json
from softlabels.store.writer import StoreWriter, require_room
from softlabels.system.local import LocalFolder
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble, load_ensemble
from softlabels.teacher.label import label_rows
from softlabels.teacher.pilot import pilot_basis, pilot_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.sentinels import check_sentinels, token_classes
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import as_stored, require_known_tokens
from softlabels_stages.recipe import parse, texts
from softlabels_stages.rows import load_rows, say_how_splits_relate
from softlabels_stages.run import command, should_stop, suggested
from softlabels_stages.teacher_arguments import TeacherLogits
from softlabels_stages.words import counted

SHOWN = 4.0  # the highest temperature of the table that is printed; the store's card has them all


@command(resumable=True)
def main(argv: Sequence[str] | None = None) -> int:
    """Label every split."""
    args = parse(argv, TeacherLogits, stage="teacher-logits", doc=__doc__, positional=("store",))
    root = LocalFolder(args.store)
    require_root(root, tuple(args.transfer_set.splits))
    args = dataclasses.replace(args, transfer_set=as_begun(root, args.transfer_set))
    recipe = _recipe_flag(argv)
    ensemble = load_ensemble(args.teacher, train=suggested("train-teacher", *recipe))
    encoding = args.labels.encoding_of(len(args.teacher.members))
    splits = [load_rows(args.transfer_set, split) for split in args.transfer_set.splits]
    ensemble.expect(splits[0].sequence)
    classes = [checked_classes(rows, ensemble, encoding) for rows in splits]
    encoding.check(1 if encoding.reduce == "geometric" else len(args.teacher.members), min(classes))
    for rows, count in zip(splits, classes, strict=True):
        _require_same_tails(args, root.within(rows.split), rows, ensemble, encoding, count)
    basis = shared_basis(root, splits, ensemble, encoding, classes[0])
    specs = [
        store_spec(args, rows, ensemble, encoding, count, basis) for rows, count in zip(splits, classes, strict=True)
    ]
    with ExitStack() as stack:
        about = About(
            source=without_folders(splits[0].source),
            teacher_licence=args.teacher.licence,
            transfer_licence=args.labels.licence,
        )
        environment = ensemble.environment()
        writers = []
        for rows, spec in zip(splits, specs, strict=True):
            path = root.within(rows.split)
            try:
                writer = StoreWriter(path, spec, basis=basis, about=about, environment=environment)
            except OtherRows as error:
                raise explained(error, path, rows.keys) from error
            writers.append(stack.enter_context(writer))
            for line in kept_about(path, about):
                print(line)
            check_committed(writer, rows, ensemble)
        announce(args.teacher.name, splits, writers)
        for rows, writer in zip(splits, writers, strict=True):
            if not writer.sealed:
                _label(rows, ensemble, writer)
    write_root(root)
    train = suggested("train-student", *recipe, f"--store={root}")
    print(f"sealed: {root} (look: {suggested('info', root)}; train: {train})")
    return 0


def as_begun(root: LocalFolder, config: TransferSetConfig) -> TransferSetConfig:
    """The transfer set whose rows of tokens begin as those of the splits that are there already, sealed or begun."""
    for store in map(root.within, config.splits):
        if store.exists(PLAN) and (store.exists(MANIFEST) or is_bound(store)):
            return as_stored(config, read_json(store, PLAN, Plan).spec.preprocessing)
    return config


def _recipe_flag(argv: Sequence[str] | None) -> tuple[str, ...]:
    """The word that a command about the same recipe has after its name."""
    config = texts(argv, TeacherLogits, positional=("store",)).get("config")
    return () if config is None else (f"--config={config}",)


def checked_classes(rows: TransferRows, ensemble: Ensemble, encoding: Encoding) -> int:
    """C, of a teacher whose logits do not depend on its batches.

    Raises `TeacherError`, `LogitsError`, `ClassMismatch`; `LabelError` of a token that has no output.
    """
    if rows.sequence is not None:
        require_known_tokens(rows.name, rows.inputs, rows.sequence, token_classes(ensemble, rows.inputs))
    classes = check_sentinels(
        ensemble,
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
    ensemble.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    return classes


def shared_basis(
    root: LocalFolder, splits: Sequence[TransferRows], ensemble: Ensemble, encoding: Encoding, classes: int
) -> Basis | None:
    """The prior and basis of the tails, one for all splits: that of a store that is begun, else found now from the first split.

    None where the tails have none. Raises `SpecMismatch` where a store that is begun has tails of another rank; one of other
    classes is left to the comparison of specifications.
    """
    if encoding.basis_rank is None:
        return None
    for rows in splits:
        found = resumable_basis(root.within(rows.split), rank=encoding.basis_rank)
        if found is not None and found.shape[1] == classes:
            return found
    chosen = pilot_rows(splits[0])
    size = counted(len(chosen), "row")
    if splits[0].sequence is not None:
        size += f" ({int(alignment(np.array(splits[0].inputs[chosen])).mask.sum()):,} positions)"
    print(f"pilot: {size} of {splits[0].split}, for the shape of the tails", flush=True)
    return pilot_basis(splits[0], ensemble, reduce=encoding.reduce, rank=encoding.basis_rank)


def _require_same_tails(
    args: TeacherLogits, store: LocalFolder, rows: TransferRows, ensemble: Ensemble, encoding: Encoding, classes: int
) -> None:
    """Raise `SpecMismatch` where `store` holds labels without such tails: before any are computed for it."""
    shape = encoding.basis_shape(classes)
    if shape is None or not store.exists(PLAN) or not (store.exists(MANIFEST) or is_bound(store)):
        return
    standing = read_json(store, PLAN, Plan)
    if standing.spec.basis_shape != shape:
        ours = store_spec(args, rows, ensemble, encoding, classes, np.zeros(shape, np.float16))
        require_same_plan(plan_of(ours), standing, str(store))


def store_spec(
    args: TeacherLogits,
    rows: TransferRows,
    ensemble: Ensemble,
    encoding: Encoding,
    classes: int,
    basis: Basis | None,
) -> Spec:
    """What decides the bytes of one split's store."""
    labels, sequence = args.labels, rows.sequence
    return spec_of(
        encoding,
        teacher=ensemble.spec,
        name=rows.name,
        split=rows.split,
        revision=rows.revision,
        key=args.transfer_set.key,
        key_rule=rows.key_rule,
        keys=rows.keys,
        classes=classes if rows.class_names is None else rows.class_names,
        preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
        layout=labels.layout,
        compression=labels.compression,
        basis=basis,
        positions=None if sequence is None else sequence.positions,
        vocabulary=None if sequence is None else sequence.below(classes).vocabulary,
        ragged=is_ragged(args.transfer_set, labels),
        embed=rows.inputs if labels.inputs == "embed" else None,
        rows_per_shard=labels.rows_per_shard,
        rows_per_chunk=labels.rows_per_chunk,
        teacher_batch=args.teacher.batch_size,
    )


def is_ragged(transfer_set: TransferSetConfig, labels: LabelsConfig) -> bool:
    """Whether rows keep only the positions that they have: rows of tokens that are not packed, in layout arrow."""
    return transfer_set.sequences is not None and not transfer_set.sequences.pack and labels.layout == "arrow"


def announce(teacher: str, splits: Sequence[TransferRows], writers: Sequence[StoreWriter]) -> None:
    """Say what the pass will take, and raise `DiskFull` before it when the disk cannot hold it."""
    spec = writers[0].spec
    members = counted(len(spec.teacher.members), "member")
    rows = ", ".join(f"{each.split} {len(each.keys):,}" for each in splits)
    print(
        f"{teacher}: {members} in {spec.teacher.precision}, {spec.label_space.classes} classes; "
        f"{splits[0].name}: {rows} rows"
    )
    sequence = splits[0].sequence
    hard = {} if sequence is not None else {each.split: np.asarray(each.labels) for each in splits}
    say_how_splits_relate({each.split: each.keys for each in splits}, hard, spec.label_space.names)
    if sequence is not None and sequence.bos:
        print(
            f"every text, and every row that goes on with one, begins with {sequence.bos!r} (transfer_set.sequences.bos)"
        )
    free = require_room(writers)
    left = sum(len(writer.pending) for writer in writers)
    shards = sum(writer.spec.shards for writer in writers)
    need = sum(writer.bytes_left for writer in writers)
    print(f"to write: {left} of {shards} shards, at most {need:,} bytes; the disk has {free:,} free", flush=True)


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
    print(
        f"{rows.split}: {counted(manifest.spec.rows, 'row')}, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}"
    )
    for line in writer.said:
        print(f"{rows.split}: {line}")
    if not manifest.spec.encoding.keeps_all:
        print(fidelity_lines(manifest))
    if warning := manifest.spec.encoding.warning(manifest.fidelity):
        print(f"{rows.split}: {warning}")


def fidelity_lines(manifest: Manifest) -> str:
    """Bytes a position and what the encoding lost, a line a temperature."""
    table = as_text(fidelity_table(manifest.fidelity, up_to=SHOWN))
    return f"{manifest.bytes_per_position:.1f} bytes a position; KL(exact || stored) in nats:\n{table}"


if __name__ == "__main__":
    sys.exit(main())
