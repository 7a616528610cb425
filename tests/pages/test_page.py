"""A page is one file: markup from texts, numbers, our scripts by hash, and nothing that is fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from softlabels.errors import MissingExtra
from softlabels.pages import bundle
from softlabels.pages.markup import Html, element, joined, table, text
from softlabels.pages.numbers import in_script, numbers
from softlabels.pages.page import page, static
from softlabels.pages.section import Section
from softlabels.pages.slider import Slider
from softlabels.transfer.cache import default_cache

HOSTILE = "</script><img src=x onerror=alert(1)>&\u2028\u2029\u202e"


class _Read(HTMLParser):
    """Tags, and the text of each script."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.inside = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = True
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.lasttag == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)


@pytest.fixture
def written() -> str:
    one = Section(
        "one", HOSTILE, element("p", HOSTILE), {"names": [HOSTILE], "x": numbers(np.arange(3, dtype=np.int32))}
    )
    return page(HOSTILE, [one, Section("two", "2", text("b"), {}, "store")], slider=Slider())


def test_texts_are_never_markup(written: str) -> None:
    assert _Read(written).tags.count("img") == 0
    assert element("p", "<b>", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;</p>'
    assert joined([Html("<i>"), "<i>", None, 3]) == "<i>&lt;i&gt;3"
    assert element("p", "so ", "it is") == "<p>so it is</p>"
    assert element("input", disabled=True, hidden=False) == "<input disabled>"
    assert "<td>&lt;a&gt;</td><td class=\"number\">1</td>" in table(("", "n"), [("<a>", 1)])  # fmt: skip


def test_only_our_scripts_run_each_by_its_hash(written: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written)
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy[1]
    ran = [body for attributes, body in _Read(written).scripts if "type" not in attributes]
    assert len(ran) == 4  # Vega, the page, the store, the beginning
    for body in ran:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'" in policy[1]
    assert policy[1].count("sha256-") == 4


def test_numbers_come_back(written: str, rng: np.random.Generator) -> None:
    [data, _] = [json.loads(body) for attributes, body in _Read(written).scripts if "type" in attributes]
    assert data["names"] == [HOSTILE]
    assert data["x"] == {"dtype": "int32", "shape": [3], "base64": "AAAAAAEAAAACAAAA"}
    values = rng.normal(size=(3, 4)).astype(">f4")
    packed = numbers(values.T)
    found = np.frombuffer(base64.b64decode(packed["base64"]), "<f4").reshape(packed["shape"])
    assert np.array_equal(found, values.T)
    with pytest.raises(ValueError, match="not JSON compliant"):
        in_script({"x": float("nan")})
    with pytest.raises(AssertionError, match="float64"):
        numbers(np.zeros(2))


def test_the_slider_stops_at_three_digits() -> None:
    stops = Slider(least=0.5, most=20).stops
    assert (stops[0], stops[-1], len(stops)) == (0.5, 20, 101)
    assert all(float(f"{stop:.3g}") == stop for stop in stops.tolist())
    assert (np.diff(stops) > 0).all()
    assert "disabled" in Slider(least=2, most=2, at=2, fixed="known at 2").html()


def test_the_bundle_is_kept_and_a_planted_one_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = pytest.importorskip("vl_convert")
    made: list[int] = []
    monkeypatch.setattr(bundle, "default_cache", default_cache)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path))
    monkeypatch.setattr(convert, "javascript_bundle", lambda: made.append(1) or "window.vega = 1;")
    fresh = bundle.vega_bundle.__wrapped__
    assert "window.vega = 1;" in fresh()
    assert fresh() == fresh()
    assert len(made) == 1
    [kept] = tmp_path.iterdir()
    kept.chmod(0o666)  # anybody may have written it
    kept.write_text("alert(1)")
    assert "alert" not in fresh()
    assert len(made) == 2


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    with pytest.raises(MissingExtra, match=r"softlabels\[report\]"):
        bundle.vega_bundle.__wrapped__()


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * each for each in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_texts_have_the_contrast_of_wcag_in_light_in_the_dark_and_on_paper() -> None:
    css, own = static("page.css"), dict[str, str]()
    blocks = re.findall(r":root \{([^}]*)\}", css)  # light, dark, and paper, each over those before it
    assert len(blocks) == 3
    for block in blocks:
        own |= dict(re.findall(r"--(\w+): (#\w+);", block))
        for name in ("ink", "quiet", "accent", "wrong"):
            for ground in ("paper", "wash"):
                light, dark = sorted((_luminance(own[name]), _luminance(own[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} on {ground} of {block}"
        most = float(re.findall(r"--most: (\d+)%", block)[0]) / 100  # of a token's colour
        paper = own["paper"] if len(own["paper"]) == 7 else "#" + "".join(2 * each for each in own["paper"][1:])
        amber = b"\xe6\x9f\x00"
        mixed = bytes(round((1 - most) * x + most * y) for x, y in zip(bytes.fromhex(paper[1:]), amber, strict=True))
        light, dark = sorted((_luminance(own["ink"]), _luminance(f"#{mixed.hex()}")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"a token of most colour of {block}"
    assert re.findall(r"[\s{;]color: (?!var|inherit)(.*?);", css) == []
