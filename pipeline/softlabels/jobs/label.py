"""`label`: a teacher's logits of a transfer set, one store a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from softlabels.errors import ClassMismatch, OtherRows, UserError
from softlabels.jobs.splits import load_rows, say_how_splits_relate
from softlabels.jobs.stores import Stores, is_begun
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.labels.encoding import Encoding
from softlabels.models.alone import is_padded
from softlabels.report.table import as_text, fidelity_table
from softlabels.store.basis import Basis
from softlabels.store.json_files import read_json
from softlabels.store.markdown import without_folders
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.paths import PLAN
from softlabels.store.records import Manifest
from softlabels.store.root import require_root, write_root
from softlabels.store.same_plan import kept_about
from softlabels.store.spec import About, Plan, Spec
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Folder
from softlabels.system.places import Place, folder_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.pilot import Pilot, pilot_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.sentinels import check_sentinels, token_classes
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.alignment import alignment
from softlabels.transfer.sequences import as_stored, require_known_tokens

SHOWN = 4.0  # the highest temperature of the table that is said; the store's card has them all


def label(
    transfer_set: TransferSetConfig | TransferRows | Sequence[TransferRows],
    teacher: Ensemble,
    labels: LabelsConfig,
    store: Place,
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
    rows = _rows_of(transfer_set, root, watch)
    encoding, members = labels.encoding_of(len(teacher.models)), len(teacher.models)
    teacher.expect(next(iter(rows.values())).sequence)
    classes = {split: checked_classes(each, teacher, encoding) for split, each in rows.items()}
    encoding.check(1 if encoding.is_reduced else members, min(classes.values()))
    folders = {split: root.within(split) for split in rows}
    found = _Labelled(rows, folders, classes, teacher, encoding, watch, labels).fill()
    write_root(root)
    return found


@dataclass(frozen=True)
class _Labelled(Stores[TransferRows]):
    """Stores of what an ensemble says of prepared rows."""

    rows: Mapping[str, TransferRows]
    folders: Mapping[str, Folder]
    classes: Mapping[str, int]
    teacher: Ensemble
    encoding: Encoding
    watch: Watch
    labels: LabelsConfig

    @property
    def first(self) -> TransferRows:
        """The split in which the basis is found."""
        return next(iter(self.rows.values()))

    def spec(self, split: str, basis: Basis | None) -> Spec:
        """Of the rows, the teacher and the settings."""
        rows, labels, classes = self.rows[split], self.labels, self.classes[split]
        sequence = rows.sequence
        return store_spec(
            self.encoding,
            teacher=self.teacher.spec,
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
            teacher_batch=self.teacher.batch_size,
        )

    def about(self, split: str) -> About:
        """Source and licences."""
        licences = {"teacher_licence": self.teacher.licence, "transfer_licence": self.labels.licence}
        return About(source=without_folders(self.first.source), **licences)

    def pilot(self) -> Iterable[Tensor]:
        """A sample of the first split."""
        first, chosen = self.first, pilot_rows(self.first)
        size = counted(len(chosen), "row")
        if first.sequence is not None:
            size += f" ({int(alignment(np.array(first.inputs[chosen])).mask.sum()):,} positions)"
        self.watch.say(f"pilot: {size} of {first.split}, for the shape of the tails")
        return Pilot(first, self.teacher, self.encoding)

    def open(self, split: str, spec: Spec, basis: Basis | None) -> StoreWriter:
        """With the row that tells the transfer set from that of the store."""
        try:
            return super().open(split, spec, basis)
        except OtherRows as error:
            raise explained(error, self.folders[split], self.rows[split].keys) from error

    def compare(self, split: str, writer: StoreWriter) -> None:
        """Hard labels and sentinel rows of the shards that are there."""
        for line in kept_about(writer.folder, self.about(split)):
            self.watch.say(line)
        check_committed(writer, self.rows[split], self.teacher)

    def announce(self, writers: Mapping[str, StoreWriter], free: int | None) -> None:
        """Teacher, rows, how splits relate, bytes."""
        spec, first, watch = next(iter(writers.values())).spec, self.first, self.watch
        members = counted(len(spec.teacher.members), "member")
        rows = ", ".join(f"{split} {len(each.keys):,}" for split, each in self.rows.items())
        watch.say(
            f"{spec.teacher.name}: {members} in {spec.teacher.precision}, {spec.label_space.classes} classes; "
            f"{first.name}: {rows} rows"
        )
        say_how_splits_relate(self.rows, spec.label_space.names, watch, tokens=first.sequence is not None)
        if first.sequence is not None and first.sequence.bos:
            begins = f"begins with {first.sequence.bos!r} (transfer_set.sequences.bos)"
            watch.say(f"every text, and every row that goes on with one, {begins}")
        left = sum(len(writer.pending) for writer in writers.values())
        shards = sum(writer.spec.shards for writer in writers.values())
        need = sum(writer.bytes_left for writer in writers.values())
        known = "" if free is None else f"; the disk has {free:,} free"
        watch.say(f"to write: {left} of {shards} shards, at most {need:,} bytes{known}")

    def say_what_was_made(self, split: str, manifest: Manifest) -> None:
        """Rows, bytes and digest of a store, and what encoding its labels lost, a line a temperature."""
        say, encoding = self.watch.say, manifest.spec.encoding
        say(f"{split}: {counted(manifest.spec.rows, 'row')}, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}")
        if not encoding.keeps_all:
            table = as_text(fidelity_table(manifest.fidelity, up_to=SHOWN))
            say(f"{manifest.bytes_per_position:.1f} bytes a position; KL(exact || stored) in nats:\n{table}")
        if warning := encoding.warning(manifest.fidelity):
            say(f"{split}: {warning}")


def _rows_of(
    given: TransferSetConfig | TransferRows | Sequence[TransferRows], root: Folder, watch: Watch
) -> dict[str, TransferRows]:
    """The rows of each split. Those of tokens begin as those of the splits below `root` that are begun already."""
    if not isinstance(given, TransferSetConfig):
        every = [given] if isinstance(given, TransferRows) else given
        splits = {rows.split: rows for rows in every}
        if not splits or len(splits) < len(every):
            said = ", ".join(rows.split for rows in every) or "none"
            raise UserError(f"the splits to label are {said}", remedy="give the rows of one or more, each split once")
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
        encoding=encoding,
        labels=rows.labels,
        names=rows.class_names,
        padded=is_padded(rows.prepare.class_path),
    )
    if classes < 2 and encoding.target == "softmax":
        raise ClassMismatch(
            "the teacher has one output, and a distribution has two classes or more",
            remedy="of a score z for yes or no make the logits (0, z), or keep it as it is (labels.kind: sigmoid)",
        )
    if rows.class_names is not None and len(rows.class_names) != classes:
        raise ClassMismatch(
            f"the teacher has {classes} classes and the transfer set {rows.name} {len(rows.class_names)}",
            remedy="give the teacher of this label space, or name its classes in transfer_set.classes",
        )
    teacher.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    return classes
