"""`Section`: a part of a page, with its numbers and the script that draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from softlabels.pages.markup import Html


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: its id on the page; of letters, digits and "-" alone.
        title: its heading.
        html: what is below the heading, by `softlabels.pages.markup`.
        data: JSON values for the script; arrays by `softlabels.pages.numbers`. Numbers that are not finite are None.
        script: the file in `pages/static` that draws it, without ".js": it sets `softlabels.sections[SCRIPT]` to a function of
            the section's element and its data. "": nothing is drawn. What it is made of are the files SCRIPT-*.js beside it,
            which set names of `softlabels.parts`.
    """

    name: str
    title: str
    html: Html
    data: Mapping[str, Any] = field(default_factory=dict)
    script: str = ""
