"""HTML from plain texts: every text that is not `Html` already is escaped, whoever wrote it. Pages are made by these functions
alone, so that no name, label or token of a stranger becomes markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from softlabels.errors import one_line

_VOID = ("br", "hr", "img", "input")


class Html(str):
    """Text that is markup already; made by this module alone."""

    __slots__ = ()


def text(value: object, longest: int | None = None) -> Html:
    """The text as it reads, on one line and cut to its first `longest` characters; what a browser would not show is escaped as
    `softlabels.errors.visible` does. A space at an end stays.
    """
    given, line = str(value), one_line(value, longest)
    return Html(escape(f"{' ' * given.startswith(' ')}{line}{' ' * (given.endswith(' ') and line != '')}"))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """`<tag attributes>children</tag>`. Children that are no `Html` are texts; None is left out. Of attributes `_` in a name is
    `-`, one at its end is dropped (`class_`); True is an attribute without a value, False and None are none.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Html:
    """Markup and texts behind each other."""
    return Html("".join(each if isinstance(each, Html) else text(each) for each in children if each is not None))


def paragraph(*children: object, **attributes: object) -> Html:
    """A paragraph."""
    return element("p", *children, **attributes)


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: int = 1) -> Html:
    """A table in a box that scrolls sideways; columns from number `numbers` on hold numbers and are set to the right."""

    def cells(tag: str, row: Sequence[object]) -> Html:
        return joined(element(tag, each, class_="number" if at >= numbers else None) for at, each in enumerate(row))

    head = element("thead", element("tr", cells("th", heads))) if any(heads) else None
    body = element("tbody", joined(element("tr", cells("td", row)) for row in rows))
    return element("div", element("table", head, body), class_="table")


def facts(pairs: Iterable[tuple[object, object]]) -> Html:
    """A list of names and what is said of each."""
    return element("dl", joined(joined([element("dt", name), element("dd", said)]) for name, said in pairs))


def numbers_of(title: str, content: Html) -> Html:
    """The numbers of a plot, folded away below it."""
    return element("details", element("summary", title), content)


def plot(name: str, label: str) -> Html:
    """The place of a plot, which a script finds by `data-plot=NAME`; `label`: what is read where it is not seen."""
    return element("div", class_="plot", data_plot=name, role="img", aria_label=label)
