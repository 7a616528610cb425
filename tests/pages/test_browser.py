"""The tabs of these tests see whatever a page does that it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.pages.browser import PHONE, Tabs, found, too_wide

GOOD = "<!doctype html><title>good</title><link rel=icon href=data:,><p>nothing happens here"
BAD = {
    "request": "<img src=https://example.invalid/x.png>",
    "error": "<script>console.error('no')</script>",
    "warning": "<script>console.warn('no')</script>",
    "page error": "<script>throw new Error('no')</script>",
    "dialog": "<script>alert('no')</script>",
    "window": "<script>open('about:blank')</script>",
    "a stranger's code ran": "<script>window.__pwned = 1</script>",
}


def test_a_page_that_does_nothing_passes(tmp_path: Path, tabs: Tabs) -> None:
    (tmp_path / "page.html").write_text(GOOD)
    page = tabs.open(tmp_path / "page.html")
    assert page.title() == "good"
    assert too_wide(page) == []


def test_what_a_page_must_not_do_is_seen(tmp_path: Path, chromium: Browser) -> None:
    tabs = Tabs(chromium)
    (tmp_path / "page.html").write_text(GOOD + "".join(BAD.values()))
    tabs.open(tmp_path / "page.html").wait_for_timeout(50)
    with pytest.raises(AssertionError) as seen:
        tabs.check()
    assert [kind for kind in BAD if kind not in str(seen.value)] == []
    tabs.close()


def test_what_is_too_wide_is_seen(tmp_path: Path, tabs: Tabs) -> None:
    (tmp_path / "page.html").write_text(GOOD + "<div class=wide style='width: 500px'>much")
    assert too_wide(tabs.open(tmp_path / "page.html", PHONE)) == ["scrolls sideways", "DIV .wide 508"]


def test_without_a_browser_tests_skip_and_those_of_ci_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("SOFTLABELS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        found()
    monkeypatch.setenv("SOFTLABELS_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        found()
