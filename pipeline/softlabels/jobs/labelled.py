"""`Labelled`: the stores of what a teacher says of prepared rows, a split each; `ByEnsemble` runs the teacher here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from softlabels.checks.unseen import unseen_lines
from softlabels.errors import OtherRows, one_line, some
from softlabels.jobs.splits import say_how_splits_relate
from softlabels.jobs.stores import Stores
from softlabels.jobs.watch import Watch, counted
from softlabels.labels.encoding import Encoding
from softlabels.labels.targets import titled
from softlabels.report.table import as_text, fidelity_table
from softlabels.store.basis import Basis
from softlabels.store.markdown import without_folders
from softlabels.store.new_spec import prepared_by, store_spec
from softlabels.store.records import Manifest
from softlabels.store.same_plan import kept_about
from softlabels.store.spec import About, Spec, TargetSpec
from softlabels.store.writer import StoreWriter
from softlabels.system.files import Folder, Presence
from softlabels.teacher.assign import names_of
from softlabels.teacher.config import LabelsConfig
from softlabels.teacher.ensemble import Ensemble
from softlabels.teacher.expected import hard_of
from softlabels.teacher.pilot import Pilot, pilot_mask, pilot_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.seen import repeats_line
from softlabels.teacher.served import Served
from softlabels.transfer import TransferRows

T = TypeVar("T", bound=Ensemble | Served)
SHOWN = 4.0  # the highest temperature of the table that is said; the store's card has them all


@dataclass(frozen=True)
class Labelled(Stores[TransferRows], Generic[T]):
    """Stores of what a teacher says of prepared rows."""

    rows: Mapping[str, TransferRows]
    folders: Mapping[str, Folder]
    classes: Mapping[str, Mapping[str, int]]
    teacher: T
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
            folds=self.teacher.folds(rows),
        )

    def _targets(self, split: str) -> dict[str, Any]:
        """What a specification says of targets: how each is kept, its classes, and whether it has hard labels."""
        rows = self.rows[split]
        found = {
            name: (encoding, names_of(rows, name) or self.classes[split][name])
            for name, encoding in self.encodings.items()
        }
        hard = hard_of(rows, {name: encoding.target for name, encoding in self.encodings.items()})
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
        """Source, with the rows that were made of it, and licences."""
        parts = [without_folders(self.first.source), self.rows[split].pseudo]
        return About(
            source="; ".join(filter(None, parts)),
            teacher_licence=self.teacher.licence,
            transfer_licence=self.labels.licence,
        )

    def pilot(self, target: str) -> Iterable[Tensor]:
        """A sample of the first split."""
        first, chosen = self.first, pilot_rows(self.first)
        size = counted(len(chosen), "row")
        if self.teacher.expected.positions is not None:
            size += f" ({int(pilot_mask(first, chosen).sum()):,} positions)"
        self.watch.say(f"pilot: {size} of {first.split}, for the shape of the tails")
        return Pilot(first, self.teacher, self.encodings[target], target)

    def open(self, split: str, spec: Spec, basis: Basis | None, presence: Presence | None = None) -> StoreWriter:
        """With the row that tells the transfer set from that of the store."""
        try:
            return super().open(split, spec, basis, presence)
        except OtherRows as error:
            raise explained(error, self.folders[split], self.rows[split].keys) from error

    def compare(self, split: str, writer: StoreWriter) -> None:
        """Say what the store keeps of an earlier `about`."""
        for line in kept_about(writer.folder, self.about(split)):
            self.watch.say(line)

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
        for line in self.teacher.said:
            watch.warn(line)
        for rows_of in self.rows.values():
            if (folds := self.teacher.folds(rows_of)) and (line := repeats_line(rows_of, folds)):
                watch.warn(line)
        say_how_splits_relate(self.rows, None, watch, tokens=True)
        for target in spec.targets if first.sequence is None else ():
            for line in self._unseen(target):
                watch.say(one_line(f"{titled(target.name)}{line}", None))
        if first.sequence is not None and first.sequence.bos:
            begins = f"begins with {first.sequence.bos!r} (transfer_set.sequences.bos)"
            watch.say(f"every text, and every row that continues a text, {begins}")
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
        """As `say_store`."""
        say_store(split, manifest, self.watch.say)


@dataclass(frozen=True)
class ByEnsemble(Labelled[Ensemble]):
    """Stores of what models that run here say."""

    def compare(self, split: str, writer: StoreWriter) -> None:
        """Hard labels and sentinel rows of the shards that are there too."""
        super().compare(split, writer)
        check_committed(writer, self.rows[split], self.teacher)


def say_store(split: str, manifest: Manifest, say: Callable[[str], object]) -> None:
    """Say rows, bytes and digest of a store, and what encoding its labels lost, a line a temperature."""
    say(f"{split}: {counted(manifest.spec.rows, 'row')}, {manifest.bytes:,} bytes, digest {manifest.digest[:16]}")
    for target in manifest.spec.targets:
        encoding, fidelity, one = target.encoding, manifest.lost[target.name].fidelity, titled(target.name)
        if not encoding.keeps_all and not fidelity:
            say(f"{one}{manifest.bytes_per_position:.1f} bytes a position; what storing lost is unknown")
        elif not encoding.keeps_all:
            table = as_text(fidelity_table(fidelity, up_to=SHOWN))
            say(f"{one}{manifest.bytes_per_position:.1f} bytes a position; KL(exact || stored) in nats:\n{table}")
        if warning := encoding.warning(fidelity):
            say(f"{split}: {one}{warning}")


def _size(target: TargetSpec) -> str:
    """How many classes or values a target has."""
    count, is_values = target.label_space.classes, target.encoding.target == "values"
    one, many = ("value", "values") if is_values else ("class", "classes")
    return f"{target.name}{': ' * bool(target.name)}{count} {one if count == 1 else many}"
