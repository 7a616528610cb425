"""`report`: a store, and runs of students beside it, as one HTML page that needs no server and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from softlabels.errors import ConfigError, SoftLabelsError
from softlabels.jobs.label_error_list import write_label_errors
from softlabels.jobs.report_runs import GivenRun, shown_run
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.objects import ObjectSpec, call_with
from softlabels.pages.boxes import Boxes
from softlabels.pages.looked import looked_at
from softlabels.pages.page import page
from softlabels.pages.row_boxes import target_of_boxes
from softlabels.pages.rows import rows_sections
from softlabels.pages.runs import runs_sections
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from softlabels.store import Store
from softlabels.store.paths import MANIFEST
from softlabels.system.local import write_atomically
from softlabels.transfer.config import TransferSetConfig


def report(
    store: Labels,
    runs: Sequence[GivenRun] = (),
    *,
    out: str | Path = "report.html",
    split: str | None = None,
    transfer: TransferSetConfig | None = None,
    boxes: ObjectSpec | None = None,
    label_errors: str | Path | None = None,
    watch: Watch = LOGGED,
) -> Path:
    """Write the page; what stood at `out` is replaced.

    Args:
        store: a sealed store, or a folder of splits; or a `Source`, of several stores that are read as one.
        runs: finished runs, whose students are asked where their recipe is given.
        out: the file.
        split: the only one that is shown; all by default.
        transfer: where the inputs of the rows are, of a store that does not hold them.
        boxes: of a detector's store, the function that finds boxes in the outputs of a row (docs/uses/detect.md); by default
            that of a run.
        label_errors: a file for the list of hard labels that are likely wrong, as CSV (docs/report.md).

    Returns:
        The file.

    Raises:
        StorePathError, UnsealedStore: no sealed store. DamagedStore: a chunk is damaged.
        ConfigError, DamagedRun: no finished run, or files that are no run's; no hard labels for `label_errors`; boxes that
            are none.
        MissingExtra: vl-convert is not installed. DiskFull, StorageError: the page cannot be written.

    Example:
        >>> from softlabels.jobs.report import report
        >>> report("stores/noise", out="noise.html", split="test").name  # one file, without a server
        'noise.html'
    """
    for each in (out, label_errors):
        if each is not None:
            _require_place(Path(each))
    source = Source.of(store)
    splits = source.open(only=split)
    transfer = transfer or next((run.transfer_set for run in runs), None)
    looked = looked_at(splits, transfer, every_label=label_errors is not None)
    finder, slider = _boxes_of(boxes, runs, splits, watch), Slider.of([*splits.values()])
    shown = [shown_run(run, source, splits, watch, named=len(runs) > 1, others=finder is not None) for run in runs]
    answers = {name: [each for _, said in shown for each in said.get(name, ())] for name in splits}
    rows = rows_sections(splits, answers=answers, looked=looked, boxes=finder)
    links = {place: section.name for place, section in zip(looked, rows, strict=True)}
    of_store, of_runs = store_sections(splits, slider, transfer), runs_sections([run for run, _ in shown], links)
    first = next(iter(splits.values())).spec
    title = f"{first.teacher.name} on {first.transfer_set.name}"
    made = page(title, [*of_store, *of_runs, *rows], slider=slider).encode()
    if label_errors is not None:  # which may be refused, and then no page is written either
        count = write_label_errors(looked, Path(label_errors))
        watch.say(f"likely label errors: {count:,}, in {label_errors}")
    write_atomically(Path(out), made)
    watch.say(f"report: {out}")
    return Path(out)


def _boxes_of(
    own: ObjectSpec | None, runs: Sequence[GivenRun], splits: Mapping[str, Store], watch: Watch
) -> Boxes | None:
    """Finds boxes by the caller's own function, or else by that of a run, which may be code that may not run here."""
    theirs = next((run.boxes for run in runs if run.boxes is not None), None)
    spec = own or theirs
    if spec is None:
        return None
    try:
        call_with(spec, {})
    except SoftLabelsError as error:
        if own is not None:
            raise
        watch.warn(f"no boxes are drawn: {error}")
        return None
    if all(target_of_boxes(store) is None for store in splits.values()):
        watch.warn("no boxes are drawn: the store has no positions with classes")
        return None
    return Boxes(lambda outputs: call_with(spec, outputs)(), spec.class_path)


def _require_place(out: Path) -> None:
    """That a file which is written there replaces no folder, pipe or device, and nothing in a store."""
    if not out.name or (out.exists() and not out.is_file()):
        what = f"{str(out)!r} is no file, and is not replaced"
    elif any((above / MANIFEST).is_file() for above in out.absolute().parents):
        what = f"{out} lies in a store, where only its own files may be"
    else:
        return
    raise ConfigError(what, remedy="name another file (--out, --label_errors)")
