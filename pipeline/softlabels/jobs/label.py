"""`label`: a teacher's logits of a transfer set, one store a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from softlabels.checks.unseen import unseen_lines
from softlabels.errors import ClassMismatch, OtherRows, UserError, one_line, some
from softlabels.jobs.splits import load_rows, say_how_splits_relate
from softlabels.jobs.stores import Stores, is_begun
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.labels.encoding import Encoding
from softlabels.labels.targets import Target
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
from softlabels.store.spec import About, Plan, Spec, TargetSpec
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Folder
from softlabels.system.places import Place, folder_of
from softlabels.teacher.assign import assigned, require_width
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import hard_of
from softlabels.teacher.pilot import Pilot, pilot_mask, pilot_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.sentinels import check_sentinels, titled, token_classes
from softlabels.transfer import TransferRows, TransferSetConfig
from softlabels.transfer.class_names import Names
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
        teacher: models that take a batch of inputs (B, ...) and give logits (B, C), of rows of positions (B, P, C), of L tokens
            (B, L - 1, V); or, of several targets, a mapping of such by name.
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
    root, encodings = folder_of(store), labels.encodings(len(teacher.models))
    kinds = {name: encoding.target for name, encoding in encodings.items()}
    rows = {split: assigned(each, kinds, labels.names) for split, each in _rows_of(transfer_set, root, watch).items()}
    _require_alike(rows)
    first = next(iter(rows.values()))
    teacher.expect(first.sequence, positions=first.positions, targets=encodings)
    classes = {split: checked_classes(each, teacher) for split, each in rows.items()}
    for name, encoding in encodings.items():
        encoding.check(1 if encoding.is_reduced else len(teacher.models), min(each[name] for each in classes.values()))
    folders = {split: root.within(split) for split in rows}
    found = _Labelled(rows, folders, classes, teacher, encodings, watch, labels).fill()
    write_root(root)
    return found


@dataclass(frozen=True)
class _Labelled(Stores[TransferRows]):
    """Stores of what an ensemble says of prepared rows."""

    rows: Mapping[str, TransferRows]
    folders: Mapping[str, Folder]
    classes: Mapping[str, Mapping[str, int]]
    teacher: Ensemble
    encodings: Mapping[str, Encoding]
    watch: Watch
    labels: LabelsConfig

    @property
    def first(self) -> TransferRows:
        """The split in which the basis is found."""
        return next(iter(self.rows.values()))

    def spec(self, split: str, basis: Basis | None) -> Spec:
        """Of the rows, the teacher and the settings."""
        rows, labels = self.rows[split], self.labels
        return store_spec(
            **self._targets(split),
            **self._positions(split),
            teacher=self.teacher.spec,
            name=rows.name,
            split=rows.split,
            revision=rows.revision,
            key=rows.key,
            key_rule=rows.key_rule,
            keys=rows.keys,
            preprocessing=prepared_by(rows.prepare.class_path, rows.prepare.init_args, rows.inputs),
            layout=labels.layout,
            compression=labels.compression,
            basis=basis,
            embed=rows.inputs if labels.inputs == "embed" else None,
            rows_per_shard=labels.rows_per_shard,
            rows_per_chunk=labels.rows_per_chunk,
            teacher_batch=self.teacher.batch_size,
        )

    def _targets(self, split: str) -> dict[str, Any]:
        """What a specification says of targets: how each is kept, its classes, and whether it has hard labels."""
        rows = self.rows[split]
        found = {
            name: (encoding, names_of(rows, name) or self.classes[split][name])
            for name, encoding in self.encodings.items()
        }
        hard = hard_of(rows, {name: encoding.target for name, encoding in self.encodings.items()})
        if "" in found:
            return {"encoding": found[""][0], "classes": found[""][1], "labelled": hard.keys()}
        return {"targets": found, "labelled": hard.keys()}

    def _positions(self, split: str) -> dict[str, Any]:
        """What it says of positions. Ragged rows keep only those that they have, where the layout can; of tokens those are
        rows that are not packed.
        """
        rows, arrow = self.rows[split], self.labels.layout == "arrow"
        if rows.sequence is None:
            return {"positions": rows.positions, "ragged": rows.ragged and arrow}
        known = min(classes for name, classes in self.classes[split].items() if self._is_softmax(name))
        ragged = not rows.prepare.init_args.get("pack", True) and arrow
        vocabulary = rows.sequence.below(known).vocabulary
        return {"positions": rows.sequence.positions, "vocabulary": vocabulary, "ragged": ragged}

    def _is_softmax(self, name: str) -> bool:
        return self.encodings[name].target == "softmax"

    def about(self, split: str) -> About:
        """Source and licences."""
        licences = {"teacher_licence": self.teacher.licence, "transfer_licence": self.labels.licence}
        return About(source=without_folders(self.first.source), **licences)

    def pilot(self, target: str) -> Iterable[Tensor]:
        """A sample of the first split."""
        first, chosen = self.first, pilot_rows(self.first)
        size = counted(len(chosen), "row")
        if self.teacher.expected.positions is not None:
            size += f" ({int(pilot_mask(first, chosen).sum()):,} positions)"
        self.watch.say(f"pilot: {size} of {first.split}, for the shape of the tails")
        return Pilot(first, self.teacher, self.encodings[target], target)

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
        sizes = ", ".join(map(_size, spec.targets))
        watch.say(f"{spec.teacher.name}: {members} in {spec.teacher.precision}, {sizes}; {first.name}: {rows} rows")
        if self.teacher.unused:
            watch.say(
                f"the teacher also gives {some(sorted(self.teacher.unused))}, which no target of labels.targets stores"
            )
        say_how_splits_relate(self.rows, None, watch, tokens=True)
        for target in spec.targets if first.sequence is None else ():
            for line in self._unseen(target):
                watch.say(one_line(f"{titled(target.name)}{line}", None))
        if first.sequence is not None and first.sequence.bos:
            begins = f"begins with {first.sequence.bos!r} (transfer_set.sequences.bos)"
            watch.say(f"every text, and every row that goes on with one, {begins}")
        left = sum(len(writer.pending) for writer in writers.values())
        shards = sum(writer.spec.shards for writer in writers.values())
        need = sum(writer.bytes_left for writer in writers.values())
        known = "" if free is None else f"; the disk has {free:,} free"
        watch.say(f"to write: {left} of {shards} shards, at most {need:,} bytes{known}")

    def _unseen(self, target: TargetSpec) -> Iterable[str]:
        """A line for each split with classes of a target that the training rows lack."""
        if not self._is_softmax(target.name):
            return ()
        hard = {split: hard_of(rows, {target.name: "softmax"}) for split, rows in self.rows.items()}
        labels = {split: np.asarray(found[target.name], np.int64) for split, found in hard.items()}
        return unseen_lines(labels, target.label_space.names)

    def say_what_was_made(self, split: str, manifest: Manifest) -> None:
        """Rows, bytes and digest of a store, and what encoding its labels lost, a line a temperature."""
        say = self.watch.say
        say(f"{split}: {counted(manifest.spec.rows, 'row')}, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}")
        for target in manifest.spec.targets:
            encoding, fidelity, one = target.encoding, manifest.lost[target.name].fidelity, titled(target.name)
            if not encoding.keeps_all:
                table = as_text(fidelity_table(fidelity, up_to=SHOWN))
                say(f"{one}{manifest.bytes_per_position:.1f} bytes a position; KL(exact || stored) in nats:\n{table}")
            if warning := encoding.warning(fidelity):
                say(f"{split}: {one}{warning}")


def _size(target: TargetSpec) -> str:
    """How many classes or values a target has."""
    count, what = target.label_space.classes, "values" if target.encoding.target == "values" else "classes"
    return f"{titled(target.name)}{count} {what}"


def names_of(rows: TransferRows, target: str) -> Names | None:
    """The class names of a target."""
    return rows.names_of.get(target) if target else rows.class_names


def _require_alike(rows: Mapping[str, TransferRows]) -> None:
    """Raise `UserError` where splits have other positions."""
    found = {split: (each.positions, each.sequence and each.sequence.positions) for split, each in rows.items()}
    if len({*found.values()}) > 1:
        said = ", ".join(f"{split} {positions or tokens}" for split, (positions, tokens) in found.items())
        raise UserError(f"the rows of the splits have other positions ({said})", remedy="prepare them alike")


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


def checked_classes(rows: TransferRows, teacher: Ensemble) -> dict[str, int]:
    """C of each target, of a teacher whose outputs do not depend on its batches.

    Raises `TeacherError`, `LogitsError`, `ClassMismatch`; `LabelError` of a token that has no output.
    """
    if rows.sequence is not None:
        require_known_tokens(rows.name, rows.inputs, rows.sequence, token_classes(teacher, rows.inputs))
    kinds = {name: encoding.target for name, encoding in teacher.expected.targets.items()}
    hard = {} if rows.sequence is not None else hard_of(rows, kinds)
    classes = check_sentinels(
        teacher,
        rows.inputs,
        labels={name: labels for name, labels in hard.items() if kinds[name] == "softmax"},
        names={name: names_of(rows, name) for name in kinds},
        mask=rows.mask,
        padded=is_padded(rows.prepare.class_path),
    )
    for name, count in classes.items():
        _check_classes(rows, name, kinds[name], count)
        if name in hard:
            require_width(name, hard[name], count, rows.positions)
    if "" in classes:
        teacher.check_class_names(rows.class_names, whose=f"the transfer set {rows.name}")
    return classes


def _check_classes(rows: TransferRows, name: str, kind: Target, classes: int) -> None:
    if classes < 2 and kind == "softmax":
        raise ClassMismatch(
            f"{titled(name)}the teacher has one output, and a distribution has two classes or more",
            remedy="of a score z for yes or no make the logits (0, z), or keep it as it is (labels.kind: sigmoid)",
        )
    names = names_of(rows, name)
    if names is not None and len(names) != classes:
        where = f"labels.targets.{name}.classes" if name else "transfer_set.classes"
        raise ClassMismatch(
            f"{titled(name)}the teacher has {classes} classes and the transfer set {rows.name} {len(names)}",
            remedy=f"give the teacher of this label space, or name its classes in {where}",
        )
