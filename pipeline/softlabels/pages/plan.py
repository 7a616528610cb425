"""The page of a plan: what its pilot found, with plots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from softlabels.pages.markup import Html, element, joined, paragraph, plot, table
from softlabels.pages.page import page
from softlabels.pages.section import Section
from softlabels.report.plan import Gain, Plan
from softlabels.report.plan_text import Part, first_line, parts

_SCRIPT = "plan"


def plan_page(plan: Plan) -> str:
    """The text of an HTML file. Raises `MissingExtra` without vl-convert."""
    plots = {"Students": _students(plan), "The store, by how labels are kept": _store(plan)}
    plots["What its distributions say beyond a class"] = _flatness(plan)
    sections = [_section(number, part, plots.get(part.title)) for number, part in enumerate(parts(plan))]
    lead = joined([paragraph(first_line(plan)), _verdict(plan)])
    return page(f"Plan: {plan.teacher.name} on {plan.name}", sections, lead=lead)


def _verdict(plan: Plan) -> Html:
    """What to settle, one below the other; where there is nothing, the sentence as it is."""
    if not plan.settle:
        return paragraph(element("strong", f"Verdict: {plan.verdict}"), id="verdict")
    items = element("ul", *(element("li", _sentence(each)) for each in plan.settle))
    return element("div", paragraph(element("strong", "Verdict: settle first")), items, id="verdict")


def _section(number: int, part: Part, drawn: tuple[Html, Mapping[str, Any]] | None) -> Section:
    said = [
        paragraph(_sentence(each)) if isinstance(each, str) else table(each.titles, each.lines) for each in part.said
    ]
    html, data = (None, {}) if drawn is None else drawn
    return Section(f"part-{number}", part.title, joined([html, *said]), data, _SCRIPT if drawn else "")


def _sentence(said: str) -> Html:
    """With a capital and a full stop, which lines on a terminal do without; an option stays on one line."""
    whole = f"{said[:1].upper()}{said[1:]}{'' if said.endswith('.') else '.'}"
    parts = re.split(r"(--[\w=]+)", whole)
    return joined(element("span", one, class_="whole") if n % 2 else one for n, one in enumerate(parts))


def _flatness(plan: Plan) -> tuple[Html, Mapping[str, Any]] | None:
    found = plan.flatness
    if found is None:
        return None
    rows = [
        {"T": float(t), "what": what, "value": value}
        for t in found["entropy"]
        for what, value in (
            ("share of the most entropy", found["entropy"][t] / found["most"]),
            ("largest probability", found["top"][t]),
        )
    ]
    told = "Entropy rises and the largest probability falls with T. Near 0 and 1 at T = 1 there is little to learn."
    drawn = plot("flatness", "Entropy and largest probability of the teacher's distributions by temperature")
    return joined([drawn, paragraph(told, class_="quiet")]), {"flatness": rows}


def _store(plan: Plan) -> tuple[Html, Mapping[str, Any]]:
    rows = [{"name": each.name, "layout": each.layout, "bytes": each.bytes} for each in plan.sizes]
    told = "Bytes of the whole store, by way to keep labels and by layout. Shorter is smaller; what each loses is in the table."
    drawn = plot("sizes", "Bytes of the whole store by way to keep labels and layout")
    return joined([drawn, paragraph(told, class_="quiet")]), {"sizes": rows}


def _students(plan: Plan) -> tuple[Html, Mapping[str, Any]] | None:
    gain = plan.gain
    if not isinstance(gain, Gain) or not gain.learnt:
        return None
    low, estimate, high = gain.interval.low, gain.interval.estimate, gain.interval.high
    off = "3 held-out rows" if gain.alike else "two standard errors"
    told = (
        f"The gain of distilled over hard students, with {off} either way; right of 0 the teacher helped. "
        "If the interval holds 0, the pilot does not show which way."
    )
    drawn = plot("gain", f"Gain in {gain.measure}: {estimate:.4g}, from {low:.4g} to {high:.4g}")
    data = {"gain": [{"low": low, "estimate": estimate, "high": high}], "measure": gain.measure}
    return joined([drawn, paragraph(told, class_="quiet")]), data
