"""`page`: sections as one self-contained HTML file. Only our own scripts run in it, by hash, and nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources

from softlabels.pages.bundle import vega_bundle
from softlabels.pages.markup import Html, element, joined, text
from softlabels.pages.numbers import in_script
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


def page(title: str, sections: Sequence[Section], *, slider: Slider | None = None, lead: Html | None = None) -> str:
    """The text of an HTML file.

    Args:
        title: its name. lead: what is said below it.
        sections: in their order; their names differ.
        slider: the temperature; None where nothing follows one.

    Raises:
        MissingExtra: vl-convert is not installed.
    """
    names = [section.name for section in sections]
    assert len({*names}) == len(names), names
    assert all(map(_NAME.fullmatch, names)), names
    own = [*dict.fromkeys(section.script for section in sections if section.script)]
    scripts = [
        vega_bundle(),
        *map(static, ["page.js", *(file for name in own for file in _files(name))]),
        "softlabels.begin();",
    ]
    data = [
        f'<script type="application/json" id="data-{section.name}">{in_script(section.data)}</script>'
        for section in sections
    ]
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(title)}</title><style>{static("page.css")}</style>'
    )
    contents = _contents(sections) if len(sections) > 1 else None
    main = element("main", joined(map(_section, sections)), id="main")
    bar = None if slider is None else slider.html()
    body = joined([element("header", element("h1", title), lead, contents), bar, main])
    ends = "".join([*data, *(f"<script>{script}</script>" for script in scripts)])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}{ends}</body></html>\n'


def _files(script: str) -> list[str]:
    """The files of a section's script: what it is made of, `SCRIPT-*.js`, and then itself."""
    every = sorted(each.name for each in (resources.files("softlabels.pages") / "static").iterdir())
    return [*(name for name in every if name.startswith(f"{script}-") and name.endswith(".js")), f"{script}.js"]


def static(name: str) -> str:
    """A file of `pages/static`; of a script nothing can end it."""
    found = (resources.files("softlabels.pages") / "static" / name).read_text(encoding="utf-8")
    assert not re.search("</(script|style)|<!--", found, re.IGNORECASE), name
    return found


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _contents(sections: Sequence[Section]) -> Html:
    links = (element("li", element("a", section.title, href=f"#{section.name}")) for section in sections)
    return element("nav", element("ol", joined(links)), aria_label="Contents")


def _section(section: Section) -> Html:
    heading = element("h2", section.title, id=f"{section.name}-title")
    labelled = {"aria_labelledby": f"{section.name}-title", "data_script": section.script or None}
    return element("section", heading, section.html, id=section.name, **labelled)
