"""Names and texts of strangers on a page: they are read as they are and run nothing; and what is not our script cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

from softlabels.pages import page as pages
from softlabels.pages.markup import element, facts, joined, numbers_of, paragraph, plot, table, text
from softlabels.pages.page import page
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from tests.pages.browser import DESKTOP, PHONE, SMALL, Tabs, too_wide
from tests.pages.hostile import LONG, NAMES, RUN, SCRIPTS

DRAW = """
softlabels.sections.hostile = async (root, data) => {
  for (const name of data.names) root.append(softlabels.element("p", { title: name, "data-name": name }, name));
  const spec = {
    mark: { type: "bar", tooltip: true }, data: { name: "rows" },
    encoding: {
      y: { field: "name", type: "nominal", title: data.names[2] },
      x: { field: "share", type: "quantitative", title: data.names[3] },
      color: { field: "group", type: "nominal", title: data.names[4] },
    },
  };
  const rows = data.names.map((name, at) => ({ name, share: at, group: data.names[at % 30] }));
  const drawn = await softlabels.chart(root, spec, { rows });
  await drawn.update("rows", rows.slice().reverse());
  root.dataset.drawn = "yes";
};
"""


def hostile_section() -> Section:
    """Every way that a text takes into a page."""
    html = joined(
        [
            *(paragraph(name, title=name) for name in NAMES),
            table(NAMES[:6], [[name, name] for name in NAMES]),
            facts((name, name) for name in NAMES),
            numbers_of(SCRIPTS[0], text(SCRIPTS[2])),
            plot("x", SCRIPTS[3]),
            *(element("a", name, href="#hostile", aria_label=name) for name in NAMES),
        ]
    )
    short = [name for name in NAMES if name not in LONG]
    return Section("hostile", SCRIPTS[0], html, {"names": short, "keys": dict.fromkeys(NAMES, 1)}, "hostile")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = pages.static
    monkeypatch.setattr(pages, "static", lambda name: DRAW if name == "hostile.js" else own(name))
    other = Section("other", SCRIPTS[2], paragraph("nothing"))
    written = page(SCRIPTS[0], [hostile_section(), other], slider=Slider(fixed=SCRIPTS[0]), lead=paragraph(SCRIPTS[2]))
    (tmp_path / "page.html").write_text(written, encoding="utf-8")
    return tmp_path / "page.html"


def test_names_of_strangers_run_nothing_and_break_nothing(hostile: Path, tabs: Tabs) -> None:
    page = tabs.open(hostile, DESKTOP)
    page.wait_for_selector("[data-drawn]")
    short = [name for name in NAMES if name not in LONG]
    drawn = page.eval_on_selector_all("[data-name]", "all => all.map(each => [each.textContent, each.dataset.name])")
    assert drawn == [[name, name] for name in short]
    assert page.title() == page.text_content("h1") == SCRIPTS[0]
    made = "iframe, object, embed, base, main form:not(.vega-bindings), main img, main link, main script, main style"
    assert page.eval_on_selector_all(made, "all => all.map(each => each.outerHTML.slice(0, 200))") == []
    for mark in page.query_selector_all("svg path[aria-roledescription=bar]")[:5]:
        mark.hover(force=True)
        page.wait_for_timeout(20)
    page.eval_on_selector_all("main a", "all => all.forEach(each => each.click())")
    for width, height in (PHONE, SMALL):
        page.set_viewport_size({"width": width, "height": height})
        assert too_wide(page) == []


FORGED = [
    f"<script>{RUN}</script>",
    f"<img src=data:, onerror={RUN}>",
    "<script src=data:text/javascript,window.__pwned=1></script>",
    "<script src=https://example.invalid/x.js></script>",
    "<img src=https://example.invalid/x.png>",
    f"<a id=go href='javascript:{RUN}'>here</a>",
    "<iframe srcdoc='<script>parent.__pwned=1</script>'></iframe>",
    "<form id=sent action=https://example.invalid/><button></button></form>",
    f"<svg onload={RUN}></svg>",
]


def test_what_is_not_our_script_does_not_run(tmp_path: Path, tabs: Tabs) -> None:
    """Were a stranger's text to become markup after all, the policy of the page would still stop it."""
    written = page("forged", [Section("a", "A", paragraph("THERE"))])
    (tmp_path / "page.html").write_text(written.replace("THERE", "".join(FORGED)))
    opened = tabs.open(tmp_path / "page.html")
    opened.evaluate("document.querySelector('#go').click(); document.querySelector('#sent').submit()")
    opened.evaluate(f"void setTimeout('{RUN}')")
    opened.wait_for_timeout(100)
    assert len([each for each in tabs.problems if "Content Security Policy" in each]) == len(FORGED) + 1, tabs.problems
    tabs.problems.clear()
