"""The part of a page on what the teacher said of a target of distributions: how sure it is, its classes, which it confuses, and
its members. Everything follows the slider.

W voices, J temperatures, S stops, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from softlabels.errors import one_line
from softlabels.pages.class_shares import Shares, class_shares
from softlabels.pages.distributions import temperatures
from softlabels.pages.histograms import MOST, histograms, interpolation
from softlabels.pages.markup import Html, element, joined, paragraph, plot, table
from softlabels.pages.numbers import numbers
from softlabels.pages.outcomes import SQUARE, Outcomes, outcomes
from softlabels.pages.sample import positions, sample
from softlabels.pages.slider import Slider, known_at
from softlabels.pages.token_names import TokenNames
from softlabels.store import Store

_CLASSES = 20  # that are shown where there are more than `SQUARE`
_EVALUATIONS = 1_000_000_000  # probabilities that are computed at all temperatures together
_LEAST_ROWS = 64  # of rows of positions
Part = tuple[Html, dict[str, Any]]


def outcome_part(store: Store, slider: Slider, tokens: TokenNames | None = None) -> Part:
    """Markup and numbers of a store of one softmax or sigmoid target; `tokens` are the classes' names of a language model."""
    nodes = len(temperatures(store.encoding, store.classes))
    numbers_each = store.encoding.summary_numbers(store.classes, store.members)
    most = min(MOST, max(1, _EVALUATIONS // (nodes * numbers_each)))
    rows = most if store.positions is None else max(_LEAST_ROWS, most // store.positions)
    taken = sample(store, rows)
    found = outcomes(store, lambda: (columns for _, _, columns in positions(store, taken, most)))
    shares = class_shares(store)
    unit = "positions" if store.positions is not None else "rows"
    seen = f"{found.positions:,} positions of {taken.words}" if store.positions is not None else taken.words
    voices = _voices(store, found)
    stops = (
        slider.stops.clip(found.temperatures[0], found.temperatures[-1])
        if known_at(store) == ""
        else found.temperatures
    )
    by, flags = interpolation(stops, found.temperatures), store.encoding.target == "sigmoid"
    most_entropy = math.log(2) if flags else math.log(store.classes)
    entropy = histograms(found.entropy, most_entropy, by)
    shown = _shown_classes(found, shares)
    data = {
        "kind": store.encoding.target,
        "what": unit,
        "positions": found.positions,
        "nodes": found.temperatures.tolist(),
        "stops": stops.tolist(),
        "voices": voices,
        "entropy": entropy,
        "top": histograms(found.top, 1.0, by),
        "apart": numbers(found.apart.astype(np.float32)) if store.members > 1 else None,
        "classes": _class_data(store, found, shares, shown, tokens),
        "pairs": _pair_data(store, found, tokens),
    }
    html = [
        paragraph(known_at(store)) if known_at(store) else None,
        paragraph(f"The plots below are of {seen}.", class_="quiet"),
        *_sure(store, voices, most_entropy, unit),
        *_classes(store, shares, shown, unit),
        *_pairs(store, unit),
        *_members(store, found, voices, unit),
    ]
    return joined(html), data


def _names(store: Store, tokens: TokenNames | None, classes: Iterable[int]) -> list[str]:
    """Of some classes, or their numbers."""
    names = store.class_names or tokens
    return [one_line(names[each], 60) if names else str(each) for each in classes]


def _voices(store: Store, found: Outcomes) -> list[str]:
    alone = len(found.entropy) == 1
    return ["teacher"] if alone else ["ensemble", *(f"member {number}" for number in range(len(found.entropy) - 1))]


def _shown_classes(found: Outcomes, shares: Shares) -> list[int]:
    """Numbers of the classes that are shown: all, or of many the most frequent."""
    if len(found.tops) <= SQUARE:
        return [*range(len(found.tops))]
    weight = shares.counts / max(1, shares.counts.sum()) + found.mass[len(found.mass) // 2]
    return sorted(np.argsort(-weight, kind="stable")[:_CLASSES].tolist())


def _class_data(
    store: Store, found: Outcomes, shares: Shares, shown: Sequence[int], tokens: TokenNames | None
) -> dict[str, Any]:
    known = np.maximum(shares.known, 1)
    hard = (shares.counts / known)[[*shown]].astype(np.float32)
    return {
        "names": _names(store, tokens, shown),
        "hard": numbers(hard) if shares.labelled else None,
        "mass": numbers(found.mass[:, shown].astype(np.float32)),
    }


def _pair_data(store: Store, found: Outcomes, tokens: TokenNames | None) -> dict[str, Any]:
    used = np.unique(found.pairs)
    return {
        "ids": used.tolist(),
        "names": _names(store, tokens, used.tolist()),
        "pairs": numbers(found.pairs.astype(np.int32)),
        "joint": numbers(found.joint.astype(np.float32)),
        "tops": numbers(found.tops[used].astype(np.int32)),
        "square": store.classes <= SQUARE,
    }


def _sure(store: Store, voices: Sequence[str], most: float, unit: str) -> list[Html]:
    equal = "of a class is certain, .69 is even odds; shown is the mean over the classes"
    if store.encoding.target == "softmax":
        equal = f"is certain, {most:.2f} is {store.classes:,} classes alike"
    about = (
        f"Entropy in nats: 0 {equal}. A student learns from what lies between. Where nearly all is at the left edge, "
        "soft labels say little more than hard ones: take a higher temperature."
    )
    top = (
        f"Probability of the most probable class. {unit.capitalize()} at the right edge are settled; those far to the left are "
        "where the teacher itself is in doubt, and where a look at the inputs pays."
    )
    rows = [
        (name, element("span", data_mean=f"entropy-{at}"), element("span", data_mean=f"top-{at}"))
        for at, name in enumerate(voices)
    ]
    heads = ("", "mean entropy", "mean largest probability")
    return [
        element("h3", "How sure the teacher is"),
        element(
            "div",
            element("div", plot("entropy", "Histogram of the entropy at the slider's temperature"), paragraph(about)),
            element("div", plot("top", "Histogram of the largest probability at the slider's temperature"), paragraph(top)),
            class_="pair",
        ),
        table(heads, rows),
    ]  # fmt: skip


def _classes(store: Store, shares: Shares, shown: Sequence[int], unit: str) -> list[Html]:
    flags = store.encoding.target == "sigmoid"
    if shares.labelled == 0:
        none = "The hard label of a token is the next one" if store.spec.of_tokens else "No hard label is stored"
        said = f"{none}: a dot is the teacher's mean probability of a class at the slider's temperature."
    else:
        missing = shares.positions - shares.labelled
        none = (
            f"{missing:,} of {shares.positions:,} {unit} have no hard label"
            if missing
            else f"All {unit} have a hard label"
        )
        bar = "flags that are 1" if flags else "hard labels"
        said = (
            f"{none}. A bar is a class's share of {bar}, the dot the teacher's mean probability at the slider's temperature. "
            "Where dots are far from their bars near T = 1, the teacher's classes are not those of the labels, or it was "
            "trained on other shares of the classes."
        )
    some = (
        f" Shown are the {len(shown)} most frequent of {store.classes:,} classes." if len(shown) < store.classes else ""
    )
    picture = plot("classes", "Share of each class by hard labels, and the teacher's mean probability")
    return [element("h3", "Classes"), paragraph(said + some), picture]


def _pairs(store: Store, unit: str) -> list[Html]:
    if store.encoding.target == "sigmoid":
        title, label = "Classes that come together", "Mean product of two classes' probabilities, by pair"
        said = (
            f"The mean of p_i p_j: in what share of the {unit} both classes hold, as the teacher sees it. A pair that should "
            "exclude each other and is here points at wrong labels, or at classes that are one."
        )
    else:
        title, label = "Which classes the teacher confuses", "Mean probability of each class by the most probable class"
        at = store.encoding.near_1
        said = (
            f"Of the {unit} whose most probable class at T = {at:g} is the one on the left, the mean probability of each other "
            "class at the slider's temperature. This is what soft labels tell a student beyond the hard label. A pair that has "
            "nothing in common points at wrong labels, or at classes that are one."
        )
    heads = (
        ("both classes", "mean", "")
        if store.encoding.target == "sigmoid"
        else ("most probable", "other", "mean probability", unit)
    )
    square = plot("square", label) if store.classes <= SQUARE else None
    most = "" if store.classes <= SQUARE else " Looked at are pairs of much mass at T = 1 and T = 4."
    body = element("tbody", data_table="pairs")
    rows = element(
        "div",
        element("table", element("thead", element("tr", joined(element("th", h) for h in heads))), body),
        class_="table",
    )
    return [element("h3", title), paragraph(said + most), square, paragraph("The largest pairs:", class_="quiet"), rows]  # type: ignore[list-item]


def _members(store: Store, found: Outcomes, voices: Sequence[str], unit: str) -> list[Html]:
    if store.members == 1:
        count = len(store.spec.teacher.members)
        why = f"The store keeps the mean of {count} members, not each." if count > 1 else "The teacher is one model."
        return [element("h3", "Members"), paragraph(why)]
    alike = (
        "decisions (a probability above .5)"
        if store.encoding.target == "sigmoid"
        else f"{unit} whose most probable class is the same"
    )
    said = (
        f"Share of {alike}, by pair of members. Members that always agree teach no more than one of them; one that agrees with "
        "none of the others may be broken, or have its classes in another order."
    )
    names = voices[1:]
    rows = [(name, *(f"{share:.3f}" for share in line)) for name, line in zip(names, found.alike.tolist(), strict=True)]
    cut = f" Shown are the first {len(names)} of {store.members:,} members." if store.members > len(names) else ""
    apart = paragraph(
        "Disagreement at the slider's temperature (mean KL of a member to the ensemble): ",
        element("span", data_mean="apart"),
        " nats.",
    )
    models = [one_line(each.model, 60) for each in store.spec.teacher.members]
    who = table(("", "model"), [(name, model) for name, model in zip(names, models, strict=False)], numbers=2)
    return [element("h3", "Members"), paragraph(said + cut), table(("", *names), rows), apart, who]
