"""Reports of texts and of a language model in Chromium: what is read is what was labelled, bars are the store's probabilities,
the hard label of a token is the next one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from softlabels import load_transfer_set
from softlabels.pages.row_inputs import inputs_of
from softlabels.pages.slider import Slider
from softlabels.pages.store_section import store_sections
from softlabels.recipes.tokenizer import ensure_tokenizer
from softlabels.recipes.tokenizer_config import TokenizerConfig
from softlabels.store import Store
from softlabels.transfer import TransferSetConfig
from softlabels.transfer.sequences import open_tokenization
from tests.pages import texts
from tests.pages.browser import DESKTOP, PHONE, Tabs, too_wide
from tests.pages.test_rows_browser import set_temperature, shown, write

Made = tuple[Store, TransferSetConfig, Path]  # of a store, its transfer set and its page


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("topics")
    store, config = texts.of_texts(work)
    return store, config, write(work / "page.html", {"test": store}, transfer=config)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Made:
    work = tmp_path_factory.mktemp("tokens")
    store, config = texts.of_tokens(work)
    return store, config, write(work / "page.html", {"test": store}, transfer=config)


def test_texts_are_read_found_and_walked_through(topics: Made, tabs: Tabs) -> None:
    store, _, path = topics
    tab = tabs.open(path)
    own = texts.paragraphs()
    read = """all => Object.fromEntries(all.map((row) => [row.dataset.row, row.querySelector(".text").textContent]))"""

    def seen() -> dict[int, str]:
        return {int(row): text for row, text in tab.eval_on_selector_all("#rows-0 .row", read).items()}

    assert len(seen()) == 20
    assert seen() == {row: own[row] if len(own[row]) <= 600 else own[row][:600] + " …" for row in seen()}
    log_p = store.log_probs(np.arange(store.rows), temperature=2.5)
    for size in (DESKTOP, PHONE):
        tab.set_viewport_size({"width": size[0], "height": size[1]})
        set_temperature(tab, 2.5)
        for each in shown(tab, "#rows-0"):
            bars = {number: p for who, number, p in each["bars"] if who == "ensemble"}
            assert [bars[number] for number in range(4)] == pytest.approx(np.exp(log_p[each["row"]]).tolist(), abs=1e-3)
        assert too_wide(tab) == []
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("/")
    tab.keyboard.type("Royalty")  # in any case
    found = shown(tab, "#rows-0")
    assert {each["row"] for each in found} == {row for row, text in enumerate(own) if "royalty" in text[:600].lower()}
    tab.evaluate("document.activeElement.blur()")
    for key, place in (("j", 0), ("j", 1), ("k", 0)):
        tab.keyboard.press(key)
        assert tab.evaluate("Number(document.activeElement.dataset.row)") == found[place]["row"]


def test_a_token_says_what_comes_next(tokens: Made, tabs: Tabs) -> None:
    """Of each row the position that is chosen, then the next one by the arrow key."""
    store, config, path = tokens
    tab = tabs.open(path)
    rows = np.asarray(load_transfer_set(config, "test").inputs)
    own = {bytes(key): row for key, row in zip(load_transfer_set(config, "test").keys, rows, strict=True)}
    ids = np.stack([own[bytes(key)][0] for key in store.column("content_key")])
    said = inputs_of(store, config, "test").of(np.arange(store.rows))
    words = {
        token: word
        for row, each in zip(ids, said, strict=True)
        for token, word in zip(row, each[0]["tokens"], strict=False)
    }
    kept = store.gather("top_class", np.arange(store.rows)).astype(np.int64)
    hard = "(row) => Number(row.querySelector('.bar-class.hard [data-who=ensemble]').dataset.class)"
    for size in (DESKTOP, PHONE):
        tab.set_viewport_size({"width": size[0], "height": size[1]})
        for temperature in (1, 7.3):
            set_temperature(tab, temperature)
            found = shown(tab, "#rows-0")
            assert len(found) == store.rows
            p = np.exp(store.log_probs([each["row"] for each in found], temperature=temperature))
            for each, of_row in zip(found, p, strict=True):
                bars = {number: value for who, number, value in each["bars"] if who == "ensemble"}
                at, row = each["position"], tab.locator(f"#rows-0 .row[data-row='{each['row']}']")
                for number, value in bars.items():
                    want = of_row[at][number] if number >= 0 else 1 - of_row[at][[k for k in bars if k >= 0]].sum()
                    assert value == pytest.approx(want, abs=1e-3)
                following = int(ids[each["row"], at + 1])
                assert row.evaluate(hard) == following
                assert row.locator(".bar-class.hard bdi").inner_text() == blanks_drawn(words[following])
                largest = kept[each["row"], at, 0][np.argsort(-of_row[at][kept[each["row"], at, 0]])[:8]]
                assert {*bars} == {-1, following, *largest.tolist()}
                described = row.locator("p.quiet").first.inner_text()
                assert described.endswith(f"which is “{words[following].strip() or blanks_drawn(words[following])}”")
            shades = tab.locator("#rows-0 [role=option]").evaluate_all(
                "(all) => all.map((each) => Number(each.style.getPropertyValue('--shade')))"
            )
            assert {min(shades), max(shades)} == {0, 1}  # however alike the entropies are
        assert too_wide(tab) == []
        [before] = [each["position"] for each in shown(tab, "#rows-0") if each["row"] == 0]
        tab.locator("#rows-0 .row[data-row='0'] [role=listbox]").focus()
        tab.keyboard.press("ArrowLeft" if before else "ArrowRight")
        [after] = [each["position"] for each in shown(tab, "#rows-0") if each["row"] == 0]
        assert after == (before - 1 if before else 1)


def blanks_drawn(token: str) -> str:
    return token.replace(" ", "␣").replace("\n", "↵")


def test_classes_are_called_by_their_tokens(tokens: Made) -> None:
    """In the store's section; by their numbers without the recipe, or with one of another tokenizer."""
    store, config, _ = tokens
    assert config.sequences is not None
    words = open_tokenization(config.sequences).tokenizer
    slider = Slider.of([store])
    data = store_sections({"test": store}, slider, config)[0].data["targets"][0]["pairs"]
    every = [(token, words.decode([token])) for token in data["ids"]]
    whole = [(token, word) for token, word in every if word.isprintable() and "\ufffd" not in word]
    assert len(whole) > 20
    named = dict(zip(data["ids"], data["names"], strict=True))
    assert [named[token] for token, _ in whole] == [blanks_drawn(word) for _, word in whole]
    assert all(named[token] == f"token {token}" for token, word in every if "\ufffd" in word)
    other = write_tokenizer(Path(config.sequences.tokenizer).parent / "other")
    for transfer in (None, replace(config, sequences=replace(config.sequences, tokenizer=str(other)))):
        data = store_sections({"test": store}, slider, transfer)[0].data["targets"][0]["pairs"]
        assert data["names"] == [*map(str, data["ids"])]


def write_tokenizer(folder: Path) -> Path:
    """One of fewer tokens."""
    whole = texts.config(folder / "texts", sequences=texts.SequencesConfig(str(folder / "tokenizer"), texts.LENGTH))
    ensure_tokenizer(TokenizerConfig(kind="bpe", vocab_size=300, max_length=texts.LENGTH), whole, split="test")
    return folder / "tokenizer"


def test_what_follows_a_token(tokens: Made) -> None:
    """By the transfer set; of rows that it lacks nothing is known."""
    store, config, _ = tokens
    found = inputs_of(store, config, "test").following(np.arange(store.rows))
    rows = load_transfer_set(config, "test")
    order = [[*map(bytes, rows.keys)].index(bytes(key)) for key in store.column("content_key")]
    assert found is not None
    assert np.array_equal(found, np.asarray(rows.inputs)[order, 0, 1:])
