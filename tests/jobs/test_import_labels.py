"""Labels of DistillKit, axolotl, vLLM and SGLang as stores: what they say, against a decoder of its own (`foreign_files`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from softlabels import array_keys, open_store
from softlabels.errors import (
    AlignmentError,
    ClassIdOverflow,
    ConfigError,
    Interrupted,
    LogitsError,
    NanLogits,
    SpecMismatch,
    TransferSetError,
    UserError,
)
from softlabels.foreign.distillkit import decoded, read_compression
from softlabels.jobs.import_labels import Foreign, Format, Translated, import_labels
from softlabels.jobs.watch import Watch
from softlabels.store import new_spec
from softlabels.store.verify import verify
from tests.jobs import foreign_files as files
from tests.jobs.foreign_files import CLASSES, Said

CAPTURES = Path(__file__).parent / "distillkit"  # made by DistillKit's own code, with what its own decoder gave
K = 12
LENGTHS = (9, 14, 2, 11)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return files.write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


Import = Callable[..., Translated]


@pytest.fixture
def imported(tmp_path: Path, tokenizer: str) -> Import:
    def run(path: Path, form: Format, store: str = "lm/train", layout: Any = "zarr", **foreign: Any) -> Translated:
        said = Foreign(**{"tokenizer": tokenizer, "known_at": 1.0, **foreign})
        return import_labels(path, tmp_path / store, from_format=form, foreign=said, layout=layout)

    return run


def compare(store: Path, said: Said, temperature: float = 1.0, off: float = 1e-3) -> None:
    """The store has the rows, by their keys, and of each position what was said of it at `temperature`."""
    opened = open_store(store)
    for tokens, by_position in said:
        [row] = opened.find(array_keys(np.array([tokens], np.uint32)))
        assert row >= 0
        p = opened.log_probs([row], temperature=temperature)[0]
        mask = opened.gather("position_mask", [row])[0]
        counted = {place for place in by_position if 0 <= place < len(tokens) - 1}
        assert np.flatnonzero(mask).tolist() == sorted(counted)
        for place in counted:
            ids, values = np.array([*by_position[place]]), np.array([*by_position[place].values()])
            close = off + 2.0**-10 * np.abs(values - values.max())  # as float16 rounds what is stored
            assert (np.abs(p[place, ids] - values) <= close).all()
            rest = np.delete(np.exp(p[place]), ids)
            assert rest.sum() == pytest.approx(1 - np.exp(values).sum(), rel=2e-3, abs=1e-5)
            assert rest.max() == pytest.approx(rest.min())  # nobody knows the tail's shape
        assert np.asarray(opened.gather("input", [row]))[0, 0, : len(tokens)].tolist() == tokens


@pytest.mark.parametrize(("name", "off"), [("poly", 1e-4), ("bins", 4e-2)])
def test_distillkit_as_its_own_code_wrote_it(name: str, off: float, tmp_path: Path, imported: Import) -> None:
    folder = CAPTURES / name
    said, own = files.said_by_distillkit(folder), np.load(folder / "decoded.npz")
    config = read_compression(folder)
    written = pq.read_table(folder / "data_0.parquet").to_pylist()
    for number, (row, (tokens, by_position)) in enumerate(zip(written, said, strict=True)):
        assert own[f"tokens{number}"].tolist() == tokens
        ours = decoded(np.array(row["compressed_logprobs"], np.uint8), config)
        for place, entries in by_position.items():
            assert own[f"ids{number}"][place].tolist() == [*entries]
            np.testing.assert_allclose(ours[place], [*entries.values()], rtol=1e-12)
            # its own decoder ends in the dtype of the exact numbers, here bfloat16 in the second
            np.testing.assert_allclose([*entries.values()], own[f"log_p{number}"][place], atol=off)
    done = imported(folder, "distillkit", known_at=None)
    compare(tmp_path / "lm/train", said)
    assert "temperature applied already: 1, as its capture takes them" in "\n".join(done.report)
    assert verify(tmp_path / "lm/train") == []
    store = open_store(tmp_path / "lm")
    assert store.encoding.only_at == 1.0
    assert not store.manifest.fidelity
    assert not store.manifest.lost[""].fidelity


def test_packed_rows_are_their_segments(tmp_path: Path, imported: Import) -> None:
    files.packed(CAPTURES / "poly", tmp_path / "packed")
    imported(tmp_path / "packed", "distillkit")
    imported(CAPTURES / "poly", "distillkit", "plain/train")
    one, other = (open_store(tmp_path / name) for name in ("lm", "plain"))
    assert one.content_digest == other.content_digest


def test_without_its_settings_a_capture_is_refused(tmp_path: Path, imported: Import) -> None:
    alone = tmp_path / "alone.parquet"
    alone.write_bytes((CAPTURES / "poly/data_0.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"compression_config\.yaml is missing, and without it the bytes"):
        imported(alone, "distillkit")
    for wrong, match in (
        ({"d": 300, "k": 24, "exact_k": 30, "residual_bins": []}, "do not fit"),
        ({"d": 300, "k": 24, "exact_k": 8, "residual_bins": [], "format_version": 2}, "format_version"),
        ({"d": 1 << 40, "k": 24, "exact_k": 8, "residual_bins": []}, "d"),
        (["a"], "array"),
        ('d: !!int ""', "no plain YAML"),
        ("d: !!bool x", "no plain YAML"),
        ("d: !!timestamp x", "no plain YAML"),
        ("d: !!python/object/apply:os.system [ls]", "no plain YAML"),
        ("a: &a {b: c}\nd: {<<: [*a, *a]}", "has aliases"),  # a few of which make values without end
    ):
        (tmp_path / "compression_config.yaml").write_text(wrong if isinstance(wrong, str) else yaml.safe_dump(wrong))
        with pytest.raises(ConfigError, match=match):
            imported(alone, "distillkit")
    (tmp_path / "compression_config.yaml").write_text("[\n" * 1000)
    with pytest.raises(ConfigError, match="cannot be used"):
        imported(alone, "distillkit")
    (tmp_path / "compression_config.yaml").unlink()
    os.mkfifo(tmp_path / "compression_config.yaml")  # which nobody waits for
    with pytest.raises(ConfigError, match="is missing"):
        imported(alone, "distillkit")
    (tmp_path / "compression_config.yaml").unlink()
    settings = yaml.safe_load((CAPTURES / "poly/compression_config.yaml").read_text())
    (tmp_path / "compression_config.yaml").write_text(yaml.safe_dump(settings | {"k": 25, "exact_k": 9}))
    with pytest.raises(
        AlignmentError, match=r"row 0: ids of \(8, 27\) and numbers of \(8, 48\) bytes, and .* says 29 and 52"
    ):
        imported(alone, "distillkit")


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
@pytest.mark.parametrize("form", ["vllm", "sglang"])
def test_servers(form: Format, layout: str, tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, LENGTHS), tmp_path / "answers.jsonl"
    (files.write_vllm if form == "vllm" else files.write_sglang)(path, rows, K)
    done = imported(path, form, layout=layout)
    compare(tmp_path / "lm/train", files.said_by_vllm(path, K) if form == "vllm" else files.said_by_sglang(path))
    store = open_store(tmp_path / "lm")
    assert store.encoding.kept(CLASSES) == K
    assert store.spec.ragged == (layout == "arrow")
    tokens, z = rows[0]  # the next token's own probability is known, also where it is none of the largest
    exact = files.log_softmax(z)
    own = store.gather("label_logit", store.find(array_keys(np.array([tokens], np.uint32))))[0, : len(tokens) - 1, 0]
    wanted = [exact[place, token] - exact[place].max() for place, token in enumerate(tokens[1:])]
    np.testing.assert_allclose(own, wanted, atol=1e-2)
    assert verify(tmp_path / "lm/train") == []
    assert "4 of 4 rows, 32 positions with labels" in done.report


@pytest.mark.parametrize("ids", ["messages", "input_ids"])
@pytest.mark.parametrize("version", [1, 2])
def test_axolotl(version: int, ids: str, tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, LENGTHS), tmp_path / "kd.jsonl"
    records = files.axolotl_rows(rows, K, version)
    files.write_lines(path, records)
    said = files.said_by_axolotl(path)
    if ids == "input_ids":
        table = [{**row, "input_ids": tokens, "messages": None} for row, (tokens, _) in zip(records, rows, strict=True)]
        path = tmp_path / "kd.parquet"
        pq.write_table(pa.Table.from_pylist(table), path)
    imported(path, "axolotl", aligned="own")
    compare(tmp_path / "lm/train", said)
    with pytest.raises(AlignmentError, match=r"off by one; give the lists .* --aligned=own or next"):
        imported(path, "axolotl", "other/train", aligned="next")


def test_entries_that_axolotl_filled_in_are_none(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    tokens, z = files.teacher(rng, (9,))[0]
    ids = [files.largest(each, K) for each in z]
    row: dict[str, Any] = {"input_ids": tokens, "target_token_ids": ids, "target_mask": [[1] * K for _ in tokens]}
    row["target_logprobs"] = [each[some].tolist() for each, some in zip(files.log_softmax(z), ids, strict=True)]
    for name, filled in (("target_token_ids", 0), ("target_logprobs", -1e9), ("target_mask", 0)):
        row[name][3][-2:] = [filled] * 2  # as its collator fills short lists up
    files.write_lines(tmp_path / "kd.jsonl", [row])
    imported(tmp_path / "kd.jsonl", "axolotl")
    store = open_store(tmp_path / "lm")
    assert store.encoding.kept(CLASSES) == K - 2
    assert sorted(store.column("top_class")[0, 3, 0]) == sorted(ids[3][: K - 2])


def test_the_own_token_of_vllm_is_none_of_the_largest(tmp_path: Path, imported: Import) -> None:
    def entry(logprob: float, rank: int | None) -> dict[str, Any]:
        return {"logprob": logprob, "rank": rank}

    largest = {"5": entry(-0.2, 1), "6": entry(-2.0, 2)}
    for number, rank in enumerate((3, None, 9)):  # earlier versions gave it the next rank, or none
        row = {"prompt_token_ids": [1, 5, 7], "prompt_logprobs": [None, largest, {"7": entry(-9.0, rank), **largest}]}
        files.write_lines(tmp_path / "answers.jsonl", [row])
        done = imported(tmp_path / "answers.jsonl", "vllm", f"{number}/train")
        assert open_store(tmp_path / f"{number}").column("top_class")[0, 1, 0].tolist() == [5, 6]
        assert not any(line.startswith("positions have") for line in done.report)
    row = {"prompt_token_ids": [1, 7], "prompt_logprobs": [None, {"7": entry(-9.0, 30)}]}  # prompt_logprobs=0
    files.write_lines(tmp_path / "answers.jsonl", [row])
    with pytest.raises(LogitsError, match="position 0 has 0 entries"):
        imported(tmp_path / "answers.jsonl", "vllm", "none/train")


def test_axolotl_labels_a_part_of_a_row(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, (20, 25)), tmp_path / "kd.jsonl"
    records = files.axolotl_rows(rows, K, 2)
    for row in records:  # of the answer alone, as chat data has it
        row["logprobs"], row["target_token_ids"] = row["logprobs"][-8:], row["target_token_ids"][-8:]
    records[1]["logprobs"][3] = None
    files.write_lines(path, records)
    done = imported(path, "axolotl", aligned="own")
    store = open_store(tmp_path / "lm")
    assert sorted(store.column("position_mask").sum(axis=1)) == [7, 8]
    assert "28 positions inside these rows have no labels" in done.report
    assert verify(tmp_path / "lm/train") == []


def test_a_temperature_that_was_applied(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, LENGTHS), tmp_path / "kd.jsonl"
    files.write_lines(path, files.axolotl_rows(rows, K, 2, temperature=2.0))
    with pytest.raises(ConfigError, match=r"files of axolotl do not give the temperature .* --known_at=1"):
        imported(path, "axolotl", aligned="own", known_at=None)
    done = imported(path, "axolotl", aligned="own", known_at=2.0)
    compare(tmp_path / "lm/train", files.said_by_axolotl(path), temperature=2.0)
    assert "it serves T=2 alone, from the 12 largest of 300 tokens; above it tail_bound=true" in "\n".join(done.report)
    store, bounded = (open_store(tmp_path / "lm", tail_bound=each) for each in (False, True))
    for temperature in (1.0, 4.0):
        with pytest.raises(ConfigError, match=r"known at temperature 2 only.*tail_bound=true"):
            store.log_probs([0], temperature=temperature)
    with pytest.raises(ConfigError, match="from 2 up, not at 1"):
        bounded.log_probs([0], temperature=1.0)
    assert np.array_equal(store.log_probs([0], temperature=2.0), bounded.log_probs([0], temperature=2.0))
    assert bounded.bound == "labels known at T=2 alone: at higher T the mass of their tail is an upper bound"
    assert store.bound == ""
    assert bounded.only("").bound == bounded.bound


def test_the_tail_of_a_bound_is_one(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, (30, 30)), tmp_path / "answers.jsonl"
    files.write_sglang(path, rows, K)
    imported(path, "sglang")
    store = open_store(tmp_path / "lm", tail_bound=True)
    for temperature in (1.5, 4.0, 20.0):
        for tokens, z in rows:
            got = store.log_probs(store.find(array_keys(np.array([tokens], np.uint32))), temperature=temperature)[0]
            for place, exact in enumerate(files.log_softmax(z / temperature)[:-1]):
                ids = files.largest(exact, K)
                assert np.exp(got[place, ids]).sum() <= np.exp(exact[ids]).sum() + 2e-3
                ratios = (each[ids] - each[ids[0]] for each in (got[place], exact))
                np.testing.assert_allclose(*ratios, atol=1e-2)


def test_probabilities_that_were_scaled(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, LENGTHS), tmp_path / "kd.jsonl"
    records = files.axolotl_rows(rows, K, 2)
    for row in records:
        row["logprobs"] = [files.log_softmax(np.array(each)).tolist() for each in row["logprobs"]]
    files.write_lines(path, records)
    with pytest.raises(LogitsError, match=r"sum to 1: they were scaled.*--tail=renormalised"):
        imported(path, "axolotl", aligned="own")
    imported(path, "axolotl", aligned="own", tail="renormalised")
    store = open_store(tmp_path / "lm")
    assert (store.probabilities([0], temperature=1.0)[0, 0] > 0).sum() == K
    with pytest.raises(ConfigError, match="have no bound at other temperatures"):
        open_store(tmp_path / "lm", tail_bound=True)


def test_the_report_counts_what_is_left_out(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, (9, 14, 11, 8, 12)), tmp_path / "kd.jsonl"
    records = files.axolotl_rows(rows, K, 2)
    records.append(records[0])
    records[1]["target_token_ids"][3][0] = CLASSES  # out of range
    records[2]["logprobs"][0] = [0.5] * K  # mass above 1
    records[3]["logprobs"] = [None] * 7
    files.write_lines(path, records)
    with pytest.raises(
        ClassIdOverflow, match=r"kd\.jsonl, row 1: an id of position 3 is 300, and the tokenizer has 300"
    ):
        imported(path, "axolotl", aligned="own")
    assert not (tmp_path / "lm").exists()
    lines = imported(path, "axolotl", aligned="own", broken="skip").report
    assert lines[0] == "2 of 6 rows, 19 positions with labels"
    for line in (
        "1 row left out: ids out of range", "1 row left out: probabilities that sum to more than 1",
        "1 row left out: no position has labels", "1 row left out: an earlier row has the same tokens",
    ):  # fmt: skip
        assert line in lines
    assert any(line.startswith("alignment: the next token is among the entries of ") for line in lines)
    assert lines[-1].startswith("what storing and sampling lost is unknown")
    mass = [1 - np.exp(each).sum() for row in (records[0], records[4]) for each in row["logprobs"]]
    assert f"mass that the file leaves out at T=1: {np.mean(mass):.4g} on average, at most {max(mass):.4g}" in lines


Change = Callable[[dict[str, Any]], object]
NESTED = json.loads("[" * 400 + "]" * 400)


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (lambda row: row["target_token_ids"][2].__setitem__(0, -1), ClassIdOverflow, "position 2 is -1"),
        (lambda row: row["target_token_ids"][2].__setitem__(0, -7), ClassIdOverflow, "position 2 is -7"),
        (lambda row: row["target_token_ids"][2].__setitem__(0, 1 << 70), UserError, "64 bits|is not as its form says"),
        (lambda row: row["target_token_ids"][2].__setitem__(0, row["target_token_ids"][2][1]), LogitsError, "token twice"),
        (lambda row: row["target_token_ids"][2].pop(), AlignmentError, "11 ids and 12 numbers"),
        (lambda row: row["target_token_ids"].pop(), AlignmentError, "8 lists of log-probabilities and 7 of ids"),
        (lambda row: row["logprobs"][2].__setitem__(0, 3.0), LogitsError, "these are no log-probabilities"),
        (lambda row: row["logprobs"][2].__setitem__(0, 1e300), LogitsError, "sum to inf"),
        (lambda row: row["logprobs"][2].__setitem__(0, "-1"), AlignmentError, "is not as its form says"),
        (lambda row: row["logprobs"].extend([[-1.0] * K] * 3), AlignmentError, "8 of ids"),
        (lambda row: row.update(logprobs=NESTED), AlignmentError, "is not as its form says"),
        (lambda row: row.update(input_ids=[1, 2, 3]), AlignmentError, "3 tokens and 8 lists"),
        (lambda row: row.update(input_ids=[1] * 8 + [CLASSES]), ClassIdOverflow, "token 8 is 300"),
        (lambda row: row.pop("messages"), LogitsError, "neither input_ids nor messages"),
        (lambda row: row.update(messages=5), ConfigError, "the chat template"),
        (lambda row: row.pop("logprobs"), LogitsError, "has no logprobs.*--column"),
        (lambda row: row.pop("target_token_ids"), LogitsError, "there are no target_token_ids"),
    ],
)  # fmt: skip
def test_rows_that_lie(
    change: Change, kind: type[UserError], match: str, tmp_path: Path, imported: Import, rng: np.random.Generator
) -> None:
    path, records = tmp_path / "kd.jsonl", files.axolotl_rows(files.teacher(rng, (9,)), K, 2)
    change(records[0])
    files.write_lines(path, records)
    with pytest.raises(kind, match=match):
        imported(path, "axolotl", aligned="own")
    assert not (tmp_path / "lm").exists()
    if kind is not ConfigError:
        with pytest.raises(TransferSetError, match="no row that can be stored: 1 row left out"):
            imported(path, "axolotl", aligned="own", broken="skip")


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("", TransferSetError, "no row that can be stored: it is empty"),
        ("{", UserError, "a record cannot be read"),
        ("[" * 100000, UserError, "a record cannot be read"),
        ('{"choices": [{"prompt_token_ids": [1, 2], "prompt_logprobs": [null, {"2": {"logprob": NaN}}]}]}', UserError, "read"),
        ('{"prompt_token_ids": [1, 2], "prompt_logprobs": [{"1": {"logprob": -1}}, null]}', AlignmentError, "not null"),
        ('{"prompt_token_ids": [1, 2], "prompt_logprobs": [null, {"7": {"logprob": -1}}]}', AlignmentError, "lacks token 2"),
        ('{"prompt_token_ids": [1, 2], "prompt_logprobs": [null]}', AlignmentError, "2 tokens and 1 entries"),
        ('{"prompt_logprobs": [null]}', LogitsError, "no prompt_token_ids.*return_token_ids"),
        ('{"prompt_token_ids": [1, 2], "prompt_logprobs": [null, {"2": {"logprob": 12}}]}', LogitsError, "raw_logits"),
        ('{"prompt_token_ids": [1, -2], "prompt_logprobs": [null, {"-2": {"logprob": -1}}]}', ClassIdOverflow, "token 1 is -2"),
    ],
)  # fmt: skip
def test_answers_that_lie(text: str, kind: type[UserError], match: str, tmp_path: Path, imported: Import) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(kind, match=match):
        imported(path, "vllm")


def test_files_that_are_none(tmp_path: Path, imported: Import, tokenizer: str) -> None:
    for form in ("vllm", "distillkit"):
        with pytest.raises(UserError, match="does not exist"):
            imported(tmp_path / "none.jsonl", form)  # type: ignore[arg-type]  # a form
    (tmp_path / "labels.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match=r"is no \.jsonl or \.json file.*no pickles"):
        imported(tmp_path / "labels.pkl", "sglang")
    whole = (CAPTURES / "poly/data_0.parquet").read_bytes()
    (tmp_path / "compression_config.yaml").write_bytes((CAPTURES / "poly/compression_config.yaml").read_bytes())
    broken = tmp_path / "broken.parquet"
    for place in (len(whole) - 300, len(whole) - 6):  # the metadata, its size
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(UserError):  # whichever it is
            imported(broken, "distillkit")
    many = pa.DictionaryArray.from_arrays(
        np.zeros((1 << 24) + 1, np.int8), pa.array([7])
    )  # the same number in a few bytes
    bomb = {"input_ids": pa.ListArray.from_arrays([0, len(many)], many), "token_ids": [[[1]]], "top_values": [[[-1.0]]]}
    pq.write_table(pa.table(bomb), broken)
    with pytest.raises(UserError, match=r"bytes, and its column input_ids 16,777,217 numbers; give a file"):
        imported(broken, "distillkit")
    with pytest.raises(ConfigError, match="name the teacher's with --teacher_tokenizer"):
        imported(CAPTURES / "poly", "distillkit", tokenizer="")
    with pytest.raises(LogitsError, match=r"row 0: position 0 has 24 entries, and k is 25; give a smaller --k"):
        imported(CAPTURES / "poly", "distillkit", k=25)
    meta = {"prompt_tokens": 9, "input_token_logprobs": [[None, 1, None]], "input_top_logprobs": [None]}
    files.write_lines(tmp_path / "late.jsonl", [{"meta_info": meta}])
    with pytest.raises(AlignmentError, match="with logprob_start_len=0"):
        imported(tmp_path / "late.jsonl", "sglang")


def test_positions_of_fewer_entries(tmp_path: Path, imported: Import, rng: np.random.Generator) -> None:
    path, records = tmp_path / "kd.jsonl", files.axolotl_rows(files.teacher(rng, (9, 12)), K, 2)
    records[1]["logprobs"][5], records[1]["target_token_ids"][5] = [-1.0, -2.0], [4, 5]
    files.write_lines(path, records)
    report = imported(path, "axolotl", aligned="own").report
    assert open_store(tmp_path / "lm").encoding.kept(CLASSES) == 2
    assert any(line.startswith("positions have 2 to 12 entries: the 2 largest are stored") for line in report)
    report = imported(path, "axolotl", "most/train", aligned="own", k=K, broken="skip").report
    assert "1 row left out: positions of fewer entries" in report
    assert open_store(tmp_path / "most").encoding.kept(CLASSES) == K


def test_a_stopped_import_resumes(
    tmp_path: Path, tokenizer: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_spec, "CHUNK_BYTES", 1)
    monkeypatch.setattr(new_spec, "CHUNKS_PER_SHARD", 1)
    rows, path = files.teacher(rng, (4,) * 40), tmp_path / "answers.jsonl"
    files.write_sglang(path, rows, 3)

    def run(store: str, watch: Watch) -> Translated:
        said = Foreign(tokenizer=tokenizer, known_at=1.0)
        return import_labels(path, tmp_path / store, from_format="sglang", foreign=said, watch=watch)

    with pytest.raises(Interrupted, match=r"stopped while .*answers\.jsonl was read"):
        run("lm/train", Watch(should_stop=lambda: True))
    commits = tmp_path / "lm/train/commits"
    with pytest.raises(Interrupted, match="with 1 of 3 shards left"):
        run("lm/train", Watch(should_stop=lambda: len([*commits.glob("*.json")]) == 2))
    resumed, whole = run("lm/train", Watch()), run("whole/train", Watch())
    assert resumed.manifest.digest == whole.manifest.digest
    assert resumed.report == whole.report
    (tmp_path / "lm/train/manifest.json").unlink()
    files.write_sglang(path, [(tokens, z + 0.5 * np.sin(z)) for tokens, z in rows], 3)
    with pytest.raises(SpecMismatch, match="was begun from other values"):
        run("lm/train", Watch())


def test_a_file_that_changes_is_noticed(tmp_path: Path, tokenizer: str, rng: np.random.Generator) -> None:
    rows, path = files.teacher(rng, (5, 6)), tmp_path / "answers.jsonl"
    files.write_sglang(path, rows, 3)

    def change() -> bool:
        if not (tmp_path / "lm").exists():
            return False  # it is read for the first time
        files.write_sglang(path, [(tokens, z * 0.9) for tokens, z in rows], 3)
        return False

    said = Foreign(tokenizer=tokenizer, known_at=1.0)
    with pytest.raises(UserError, match="changed while it was read"):
        import_labels(path, tmp_path / "lm/train", from_format="sglang", foreign=said, watch=Watch(should_stop=change))


def test_nan_among_compressed_numbers(tmp_path: Path, imported: Import) -> None:
    rows = pq.read_table(CAPTURES / "poly/data_0.parquet").to_pylist()
    rows[1]["compressed_logprobs"][4][:4] = [0, 0, 192, 127]  # NaN in float32
    (tmp_path / "compression_config.yaml").write_bytes((CAPTURES / "poly/compression_config.yaml").read_bytes())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    with pytest.raises(NanLogits, match="row 1: a log-probability of position 4 is NaN"):
        imported(tmp_path / "one.parquet", "distillkit")


def test_no_kept_entry_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 0; give --k from 1 up, or leave it out"):
        Foreign(tokenizer="tokenizer", k=0)
