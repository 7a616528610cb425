"""The sections of a page on single rows: inputs, the teacher's distribution at any temperature, hard label and students.

R rows shown, N their positions one behind the other, M members, K kept classes, J nodes, S students.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabels.errors import one_line
from softlabels.pages.answers import Answers
from softlabels.pages.boxes import Boxes, Row
from softlabels.pages.distributions import ALL, NODES, Carried, Shown, Teacher, reference_node, shown
from softlabels.pages.looked import Looked
from softlabels.pages.markup import Html, element, joined, paragraph
from softlabels.pages.media import LARGE
from softlabels.pages.numbers import numbers
from softlabels.pages.row_boxes import RowBoxes, target_of_boxes
from softlabels.pages.row_choice import MOST_ROWS, interleaved, ranked
from softlabels.pages.row_inputs import RowInputs
from softlabels.pages.row_scan import Scan, columns_of, counted, teacher_of
from softlabels.pages.section import Section
from softlabels.pages.token_names import TokenNames
from softlabels.pages.value_rows import value_data
from softlabels.store import Store
from softlabels.store.columns import LABEL

BUDGET = 2_500_000  # bytes of all rows of a page
POSITIONS = 1024  # of a row
_NAME = 80  # characters of a class's name
_AT_ONCE = 50  # rows whose inputs are read together
_WORK, _LESS = 1 << 30, 1 << 27  # probabilities that are computed; fewer where all are decoded
_MEMORY = "If the teacher saw these labels in training, it remembers them, and the list is too short."
_PARTS = "Disagreement and errors of a row are in standard deviations of each output, so all units count alike."
_FOLDS = "The teacher labelled each row by a model that did not see it in training."

Ints = NDArray[np.int64]
Json = dict[str, Any]


def rows_sections(
    stores: Mapping[str, Store],
    looked: Mapping[tuple[str, str], Looked],
    answers: Mapping[str, Sequence[Answers]] | None = None,
    *,
    boxes: Boxes | None = None,
    budget: int = BUDGET,
) -> list[Section]:
    """A section for each target of each split.

    Args:
        stores: sealed stores by split.
        looked: what was found of them, see `looked_at`.
        answers: what students say of rows, by split.
        boxes: finds those of a detector, which are drawn over the pictures of the first target of distributions.
        budget: bytes of all sections together, roughly.
    """
    said = answers or {}
    shares = {split: 3 if said.get(split) else 1 for split in stores}
    sections = []
    for number, ((split, target), each) in enumerate(looked.items()):
        own = [one for one in said.get(split, ()) if one.target == target]
        drawn = boxes is not None and target_of_boxes(stores[split]) == target
        sections.append(
            _section(
                f"rows-{number}",
                f"Rows: {split}" + f", {target}" * bool(target),
                each,
                own,
                RowBoxes(stores[split], target, own, boxes) if boxes is not None and drawn else None,
                budget * shares[split] // sum(shares[split] for split, _ in looked),
            )
        )
    return sections


def _section(
    name: str, title: str, looked: Looked, answers: Sequence[Answers], boxes: RowBoxes | None, budget: int
) -> Section:
    store, found, inputs = looked.store, looked.found, looked.inputs
    lists = ranked(store, found, answers)
    rows, said = _fitting(store, interleaved(lists), inputs, answers, boxes, budget)
    data = _data(store, np.array(rows, np.int64), inputs, answers, found.usual, [each.get("boxes") for each in said])
    errors = _errors_by_place(store, found)
    for number, row in enumerate(rows):
        data["rows"][number] |= {"row": row, "error": errors.get(row)} | said[number]
    shown_rows = f"{len(rows):,} of {store.rows:,} rows" + f", {data['starts'][-1]:,} positions" * bool(store.positions)
    said_first = _words(store, found, f"{shown_rows}, chosen in turn from these lists: {'; '.join(lists)}", inputs)
    if boxes is not None:
        drawn = any("boxes" in each for each in said)
        said_first.append(paragraph(boxes.said if drawn else "No boxes are drawn: these rows have no picture."))
    html = joined([*said_first, element("div", class_="rows")])
    return Section(name, title, html, data, "rows")


def _fitting(
    store: Store,
    chosen: Sequence[int],
    inputs: RowInputs,
    answers: Sequence[Answers],
    boxes: RowBoxes | None,
    budget: int,
) -> tuple[list[int], list[Json]]:
    """The rows that fit the budget, in order, with their inputs, and boxes in their pictures."""
    cost = _position_bytes(store, chosen[0], inputs, answers) if len(chosen) else 0.0
    work = _WORK if store.members == 1 and not store.encoding.keeps_all else _LESS
    work = max(1, work // min(POSITIONS, store.positions or 1) // (store.members * store.classes * NODES))
    rows: list[int] = []
    said: list[Json] = []
    left = float(budget)
    most = min(MOST_ROWS, work)
    for start in range(0, most, _AT_ONCE):
        part = np.array(chosen[start : min(most, start + _AT_ONCE)], np.int64)
        positions = counted(store, part).sum(axis=1).clip(max=POSITIONS)
        for row, own, count in zip(part.tolist(), _said(part, inputs, boxes), positions.tolist(), strict=True):
            left -= cost * count + len(json.dumps(own)) + 200
            if left < 0 and rows:
                return rows, said
            rows.append(row)
            said.append(own)
    return rows, said


def _said(rows: Ints, inputs: RowInputs, boxes: RowBoxes | None) -> list[Json]:
    """Inputs of rows, and boxes where one of them is a picture."""
    if boxes is None:
        return [{"inputs": own} for own in inputs.of(rows)]
    return [
        {"inputs": own} | ({"boxes": found} if any(each["kind"] == "picture" for each in own or ()) else {})
        for own, found in zip(inputs.of(rows, edge=LARGE), boxes.of(rows), strict=True)
    ]


def _position_bytes(store: Store, first: int, inputs: RowInputs, answers: Sequence[Answers]) -> float:
    """What a position takes on the page, roughly: as the first row's do, a tenth more as others keep more classes."""
    if store.encoding.target == "values" or store.classes <= ALL:
        curves = (
            0 if store.encoding.keeps_all else len(teacher_of(store).nodes) * (2 + 2 * store.members + 2 * len(answers))
        )
        return 1.4 * 4 * ((store.members + len(answers) + 1) * store.classes + curves + 1)
    data = _data(store, np.array([first], np.int64), inputs, answers, None, [None])
    size: int = sum(len(each["base64"]) for each in data.values() if isinstance(each, dict) and "base64" in each)
    return 1.1 * size / max(1, int(data["starts"][-1]))


def _data(
    store: Store,
    rows: Ints,
    inputs: RowInputs,
    answers: Sequence[Answers],
    usual: NDArray[np.float64] | None,
    boxes: Sequence[Sequence[Row | None] | None],
) -> Json:
    """All but inputs and boxes."""
    columns, counts = columns_of(store, rows)
    places = np.argwhere(counts)  # (N, 2), row by row
    keep = _kept(places, boxes)
    columns = {name: values[keep] for name, values in columns.items()}
    places = places[keep]
    starts = np.searchsorted(places[:, 0], np.arange(len(rows) + 1))
    hard = _hard(store, rows, places, inputs)
    said = [_outputs(each, rows, places, store.classes) for each in answers]
    data: Json = {
        "kind": store.encoding.target,
        "members": [one_line(each.model, _NAME) for each in store.spec.teacher.members][: store.members],
        "weights": store.member_weights.tolist(),
        "students": [{"label": one_line(each.label, _NAME), "kind": each.kind} for each in answers],
        "of": "tokens" if store.spec.of_tokens else "rows" if store.positions else None,
        "most": store.positions,
        "classes": store.classes,
        "places": numbers(places[:, 1].astype(np.int32)),
        "starts": starts.tolist(),
        "rows": [
            {"asked": [bool(asked[start]) for asked, _ in said]} for start in starts[:-1].clip(max=len(places) - 1)
        ],
    }
    if usual is not None:
        return data | value_data(store, columns, hard, [outputs for _, outputs in said], usual)
    labels = hard if hard is not None and hard.ndim == 1 else np.full(len(places), -1)
    found = shown(teacher_of(store), columns, labels, [outputs for _, outputs in said])
    return data | _soft_data(teacher_of(store), found, hard, store.class_names or inputs.names)


def _kept(places: Ints, boxes: Sequence[Sequence[Row | None] | None]) -> NDArray[np.bool_]:
    """Which positions are shown: of each row those that have a box, and the first others, `POSITIONS` in all."""
    keep = np.zeros(len(places), np.bool_)
    for number, voices in enumerate(boxes):
        own = np.flatnonzero(places[:, 0] == number)
        boxed = np.isin(places[own, 1], [int(box[0]) for voice in voices or () for box in voice or ()])
        keep[own[np.argsort(~boxed, kind="stable")[:POSITIONS]]] = True
    return keep


def _soft_data(
    teacher: Teacher, found: Shown, hard: NDArray[Any] | None, names: Sequence[str] | TokenNames | None
) -> Json:
    nodes = teacher.nodes
    whole = bool((found.ids == found.ids[:1]).all())
    used = np.unique(np.concatenate([found.ids[0] if whole else found.ids.reshape(-1), found.students_top.reshape(-1)]))
    labels = None
    if hard is not None:
        labels = hard if hard.ndim == 1 else np.take_along_axis(hard, found.ids.clip(min=0), axis=1)
    return {
        "nodes": nodes.tolist(),
        "reference": reference_node(nodes),
        "names": {int(each): one_line(names[each], _NAME) for each in used if names and 0 <= each < len(names)},
        "ids": numbers(found.ids[:1] if whole else found.ids),
        "labels": None if labels is None else numbers(labels.astype(np.int32)),
        "log_p": numbers(found.log_p),
        "student_log_p": numbers(found.students),
        "students_top": numbers(found.students_top),
        **({} if found.carried is None else _carried_data(found.carried)),
    }


def _carried_data(carried: Carried) -> Json:
    return {
        "curves": None if carried.curves is None else numbers(carried.curves),
        "in_tail": numbers(carried.in_tail) if carried.in_tail.any() else None,
        "entropy": numbers(_scores(carried.entropy)),
        "disagreement": numbers(_scores(carried.disagreement)) if carried.disagreement.any() else None,
        "student_curves": numbers(carried.student_curves),
        "kl": numbers(_scores(carried.kl)),
    }


def _scores(values: NDArray[np.float32]) -> NDArray[np.generic]:
    """As float16, within .05%; as they are where one is too large for it."""
    return values.astype(np.float16) if values.max(initial=0.0) < np.finfo(np.float16).max else values


def _hard(store: Store, rows: Ints, places: Ints, inputs: RowInputs) -> NDArray[Any] | None:
    """Hard labels of positions: (N,) classes, (N, C) flags, (N, D) values; of tokens the next ones, where inputs are there."""
    if store.spec.of_tokens:
        following = inputs.following(rows)
        return None if following is None else following[places[:, 0], places[:, 1]]
    if LABEL not in store.columns:
        return None
    every = store.gather(LABEL, rows)
    return every[places[:, 0]] if store.positions is None else every[places[:, 0], places[:, 1]]


def _outputs(answers: Answers, rows: Ints, places: Ints, classes: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Of each position whether the student was asked, and its outputs (N, C), 0 where it was not."""
    order = np.argsort(rows)
    there, outputs = answers.of(rows[order])
    whole = np.zeros((len(rows), *answers.outputs.shape[1:]), np.float32)
    whole[order[there]] = outputs
    asked = np.zeros(len(rows), np.bool_)
    asked[order[there]] = True
    flat = whole[places[:, 0], places[:, 1]] if whole.ndim == 3 else whole[places[:, 0]]
    return asked[places[:, 0]], flat.reshape(len(places), classes)


def _errors_by_place(store: Store, found: Scan) -> dict[int, list[Json]]:
    """Of each row its likely label errors."""
    errors = found.errors
    by_row: dict[int, list[Json]] = {}
    if errors is None:
        return by_row
    names = store.class_names
    for place, suggested, score in zip(
        errors.places.tolist(), errors.suggested.tolist(), errors.scores.tolist(), strict=True
    ):
        row, position = divmod(place, store.positions or 1)
        said = one_line(names[suggested], _NAME) if names else str(suggested)
        by_row.setdefault(row, []).append({"position": position, "suggested": said, "score": round(score, 4)})
    return by_row


def _words(store: Store, found: Scan, shown_rows: str, inputs: RowInputs) -> list[Html]:
    """What is shown, from where, and how to read it."""
    sample = f" (of {len(found.rows):,} rows, taken evenly by content key)" if len(found.rows) < store.rows else ""
    said = [paragraph(f"{shown_rows}{sample}. {inputs.said}")]
    if found.usual is not None:
        said.append(paragraph(_PARTS))
    errors = found.errors
    if errors is not None:
        trust = _FOLDS if store.spec.folds else _MEMORY
        some = f" (of {found.labels_of:,} rows, taken evenly by content key)" if found.labels_of < store.rows else ""
        count = f"{len(errors.places):,} of {errors.looked_at:,} hard labels{some}"
        how = f"by confident learning on the ensemble's probabilities at T = {store.encoding.near_1:g}"
        said.append(paragraph(f"Likely label errors: {count}, {how}. {trust} Look at them before you change any."))
    return said
