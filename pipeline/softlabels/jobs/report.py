"""`report`: a store, and runs of students beside it, as one HTML page that needs no server and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from softlabels.errors import ConfigError, SoftLabelsError
from softlabels.jobs.label_error_list import HEAD, write_label_errors
from softlabels.jobs.page_files import require_place
from softlabels.jobs.report_runs import GivenRun, distinct_names, shown_run
from softlabels.jobs.sources import Labels, Source
from softlabels.jobs.watch import LOGGED, Watch
from softlabels.objects import ObjectSpec, call_with
from softlabels.pages.answers import Answers
from softlabels.pages.boxes import Boxes
from softlabels.pages.bundle import vega_bundle
from softlabels.pages.looked import Looked, looked_at
from softlabels.pages.page import page
from softlabels.pages.row_boxes import target_of_boxes
from softlabels.pages.rows import rows_sections
from softlabels.pages.runs import runs_sections
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from softlabels.store import Store
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
    """Write the page; one that stood at `out` is replaced.

    Args:
        store: a sealed store, or a folder of splits; or a `Source`, of several stores that are read as one.
        runs: finished runs, whose students are asked where their recipe is given.
        out: the file.
        split: the only one that is shown; all by default.
        transfer: where the inputs of the rows are, of a store that does not hold them.
        boxes: of a detector's store, the function that finds boxes in the outputs of a row (docs/uses/detect.md); by default
            that of a run, whose failure costs the boxes alone.
        label_errors: a file for the list of hard labels that are likely wrong, as CSV (docs/report.md).

    Returns:
        The file.

    Raises:
        StorePathError, UnsealedStore: no sealed store. DamagedStore: a chunk is damaged.
        ConfigError, DamagedRun: no finished run, or files that are no run's; no hard labels for `label_errors`; boxes that
            are none; another kind of file at `out`.
        MissingExtra: vl-convert is not installed. DiskFull, StorageError: the page cannot be written.

    Example:
        >>> from softlabels.jobs.report import report
        >>> report("stores/noise", out="noise.html", split="test").name  # one file, without a server
        'noise.html'
    """
    vega_bundle()  # without it there is no page
    _require_places(Path(out), None if label_errors is None else Path(label_errors))
    source = Source.of(store)
    splits = source.open(only=split)
    runs = [*{run.path.resolve(): run for run in runs}.values()]  # each once
    transfer = transfer or next((run.transfer_set for run in runs), None)
    looked = looked_at(splits, transfer, every_label=label_errors is not None)
    finder, slider = _boxes_of(boxes, runs, splits, watch), Slider.of([*splits.values()])
    pairs = zip(runs, distinct_names(runs), strict=True)
    shown = [shown_run(run, source, splits, watch, name=name, others=finder is not None) for run, name in pairs]
    answers = {name: [each for _, said in shown for each in said.get(name, ())] for name in splits}
    rows = _rows(splits, answers, looked, finder, watch, asked_for=boxes is not None)
    links = {place: section.name for place, section in zip(looked, rows, strict=True)}
    of_store, of_runs = store_sections(splits, slider, transfer), runs_sections([run for run, _ in shown], links)
    spec = next(iter(splits.values())).spec
    title = f"{spec.teacher.name} on {spec.transfer_set.name}"
    made = page(title, [*of_store, *of_runs, *rows], slider=slider).encode()
    if label_errors is not None:  # which may be refused, and then no page is written either
        count = write_label_errors(looked, Path(label_errors))
        watch.say(f"likely label errors: {count:,}, in {label_errors}")
    write_atomically(Path(out), made)
    watch.say(f"report: {out}")
    return Path(out)


def _require_places(out: Path, label_errors: Path | None) -> None:
    """That page and list replace nothing of another kind, nor each other."""
    require_place(out)
    if label_errors is not None:
        require_place(label_errors, begins=",".join(HEAD))
        if label_errors.resolve() == out.resolve():
            raise ConfigError(f"page and list would be one file, {out}", remedy="name another file (--label_errors)")


def _rows(
    splits: Mapping[str, Store],
    answers: Mapping[str, Sequence[Answers]],
    looked: Mapping[tuple[str, str], Looked],
    boxes: Boxes | None,
    watch: Watch,
    *,
    asked_for: bool,
) -> list[Section]:
    """Of single rows, without boxes where these fail, unless they were asked for: a run may be of another store."""
    try:
        return rows_sections(splits, looked, answers, boxes=boxes)
    except ConfigError as error:
        if asked_for or boxes is None or error is not boxes.failure:
            raise
        watch.warn(f"no boxes are drawn: {error}")
    return rows_sections(splits, looked, answers)


def _boxes_of(
    own: ObjectSpec | None, runs: Sequence[GivenRun], splits: Mapping[str, Store], watch: Watch
) -> Boxes | None:
    """Finds boxes by the caller's own function, or else by that of a run, which may be code that may not run here."""
    refused, spec = None, None
    for each in [own] if own is not None else [run.boxes for run in runs if run.boxes is not None]:
        try:
            call_with(each, {})
        except SoftLabelsError as error:
            if own is not None:
                raise
            refused = refused or error
        else:
            spec = each
            break
    if spec is None:
        if refused is not None:
            watch.warn(f"no boxes are drawn: {refused}")
        return None
    if all(target_of_boxes(store) is None for store in splits.values()):
        watch.warn("no boxes are drawn: the store has no positions with classes")
        return None
    return Boxes(lambda outputs: call_with(spec, outputs)(), spec.class_path)
