"""info, verify, repair and convert from the outside."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from softlabels.store import open_store
from softlabels_stages import convert, encode, info, repair, verify
from tests.stages.test_teacher_logits import TOPK, digests, label


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    return err


def test_info_says_what_a_store_is_in_ten_lines(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([str(store / "train")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    said = dict(line.split(maxsplit=1) for line in lines)
    assert said["digest"] == open_store(store / "train").digest
    assert said["teacher"].startswith("imaginary, 2 members")
    assert "kind 0, kind 1" in said["classes"]


def test_info_of_an_unfinished_store_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "train" / "manifest.json").unlink()
    assert info.main([str(store), "--split=train", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sealed"], facts["digest"], facts["shards"], facts["shards_done"]) == (False, None, 3, 3)


@pytest.mark.parametrize("command", [info, verify, convert])
def test_a_path_without_a_store(command: object, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = [] if command is not convert else ["copy"]
    assert command.main(["nowhere", *target]) == 2  # type: ignore[attr-defined]
    assert "StorePathError: nowhere does not exist" in one_line(capsys)
    Path("file").write_text("")
    assert command.main(["file", *target]) == 2  # type: ignore[attr-defined]
    assert "StorePathError: file is a file; a store is a folder" in one_line(capsys)


def test_verify_passes_a_sound_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(store)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{store}: every byte is as it was sealed"


def test_verify_names_every_damaged_and_missing_chunk(
    store: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    damaged, missing = store / "train" / "logits" / "c.1.0.0", store / "train" / "shift" / "c.2.0"
    data = bytearray(damaged.read_bytes())
    at = int(rng.integers(32 * 2 * 5 * 2 + 4))  # a byte of the first chunk
    data[at] ^= 1
    damaged.write_bytes(data)
    missing.unlink()
    assert verify.main([str(store)]) == 3
    said = capsys.readouterr()
    assert "shard 1: logits/c.1.0.0: chunk 0 of column logits differs from its digest; get this file again" in said.err
    assert "shard 2: shift/c.2.0: shard 2 is missing" in said.err
    assert "2 problems" in said.out
    assert said.out.splitlines()[-1] == f"{store}: 2 problems"


def test_verify_of_an_unsealed_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = store / "train"
    (train / "manifest.json").unlink()
    assert verify.main([str(train)]) == 2
    assert (
        f"is unfinished: 3 of 3 shards are committed and it has no manifest.json; all that it lacks is sealing: "
        f"`softlabels repair {train}` does that"
    ) in one_line(capsys)
    (train / "commits" / "00000.json").unlink()
    assert verify.main([str(train)]) == 2
    assert "2 of 3 shards are committed and it has no manifest.json; run the command that began" in one_line(capsys)


def test_verify_against_the_live_teacher(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store") == 0
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 0
    assert re.search(
        r"against the live teacher: largest deviation of a logit \S+ of its row's largest "
        r"\(rounding explains \S+\), root mean square \S+ \(\S+\), same top class 100.00%",
        capsys.readouterr().out,
    )
    text = Path("recipe.yaml").read_text()
    Path("recipe.yaml").write_text(
        text.replace("tests.stages.toy.points", "tests.stages.toy.points\n    init_args: {noise: 2}")
    )
    assert verify.main(["store", "--against_teacher=recipe.yaml"]) == 2
    assert "UnlabelledRows: " in one_line(capsys)
    assert verify.main(["store", "--against_teacher=nope.yaml"]) == 2
    found = capsys.readouterr()
    assert "there is no recipe nope.yaml" in found.err
    assert "rows" not in found.out  # before a byte is read


@pytest.mark.parametrize("split", [None, "train"])
def test_convert_there_and_back(split: str | None, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = store if split is None else store / split
    assert convert.main([str(source), "arrow"]) == 0
    assert "(unchanged)" in capsys.readouterr().out
    assert convert.main(["--from=arrow", "--store=back", "--compression=zstd"]) == 0
    for each in ("train", "test") if split is None else (None,):
        stores = [open_store(path, split=each) for path in (source, "arrow", "back")]
        assert [one.layout for one in stores] == ["zarr", "arrow", "zarr"]
        assert len({one.content_digest for one in stores}) == 1
        assert len({one.digest for one in stores}) == 3
        assert len({one.manifest.fidelity["4"] for one in stores}) == 1
    assert verify.main(["back"]) == 0


def test_convert_refuses_a_damaged_source_and_a_taken_target(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store, "taken")
    assert convert.main([str(store / "train"), "taken/test"]) == 2
    assert "taken/test was begun with another specification" in one_line(capsys)
    (store / "train" / "logits" / "c.0.0.0").write_bytes(b"")
    assert convert.main([str(store), "copy"]) == 3
    assert "DamagedShard: shard 0 is damaged: " in one_line(capsys)
    assert not Path("copy/train/manifest.json").exists()


def test_convert_does_not_write_into_its_source(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (store / "sub", store / "train" / "sub"):
        assert convert.main([str(store), str(target)]) == 2
        assert "give a target beside the source" in one_line(capsys)
    assert convert.main([str(store / "train"), str(store / "train" / "sub")]) == 2
    assert "StorePathError: " in one_line(capsys)
    assert verify.main([str(store)]) == 0


def test_a_stopped_convert_says_how_to_go_on(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])
    monkeypatch.setattr(convert, "should_stop", lambda: next(answers))
    assert convert.main([str(store / "train"), "copy"]) == 75
    said = "Interrupted: stopped with 2 of 3 shards left in copy; run the same command again to resume"
    assert said in capsys.readouterr().err
    monkeypatch.setattr(convert, "should_stop", lambda: False)
    assert convert.main([str(store / "train"), "copy"]) == 0
    assert open_store("copy").content_digest == open_store(store / "train").content_digest


def test_a_sample_of_no_rows_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(store), "--against-teacher=recipe.yaml", "--teacher-rows=0"]) == 2
    assert "ConfigError: --teacher_rows=0; give 1 row or more" in one_line(capsys)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[9] ^= 1
    file.write_bytes(data)


def test_verify_of_a_part_says_which_shards_it_read(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(store / "train" / "logits" / "c.1.0.0")
    assert verify.main([str(store), "--quick"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "train: 160 rows, 3 shards (no labels read), 0 problems, digest " in said[1]
    assert said[-1] == f"{store}: everything that can be checked without reading labels is as it was sealed"
    codes = [verify.main([str(store / "train"), f"--sample={n}/2"]) for n in (1, 2)]
    said = capsys.readouterr().out.splitlines()
    assert codes == [0, 3]
    assert "(every byte of 2 of them), 0 problems" in said[0]
    assert said[1].endswith("every byte of these shards is as it was sealed")
    assert "(every byte of 1 of them), 1 problem," in said[2]
    (store / "test" / "shift" / "c.0.0").unlink()
    assert verify.main([str(store), "--sample=3/30"]) == 3  # presence and sizes are those of all shards
    said = capsys.readouterr().out.splitlines()
    assert "test: 80 rows, 2 shards (no labels read), 1 problem," in said[0]


@pytest.mark.parametrize("words", ["0/3", "4/3", "x", "1/0", "1"])
def test_parts_that_there_are_not(store: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert verify.main([str(store), f"--sample={words}"]) == 2
    assert f"ConfigError: --sample={words}; give n/t with n from 1 to t, such as --sample=1/30" in one_line(capsys)
    assert verify.main([str(store), "--sample=1/3", "--quick"]) == 2
    assert "ConfigError: --quick and --sample exclude each other" in one_line(capsys)


def test_one_damaged_split_hides_no_other(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "test" / "plan.json").unlink()
    (store / "train" / "manifest.json").write_bytes(b"{}")
    assert verify.main([str(store)]) == 3
    said = capsys.readouterr()
    assert "test: store/test/plan.json is gone; get this file again" in said.err.replace(str(store), "store")
    assert "train: store/train/manifest.json does not fit the format" in said.err.replace(str(store), "store")
    assert said.out.splitlines()[-1] == f"{store}: 2 problems"


def test_a_split_that_is_gone_is_missed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store") == 0
    shutil.rmtree("store/test")
    capsys.readouterr()
    assert verify.main(["store"]) == 3
    assert "store: split test is gone, though it was sealed; the command that made it" in capsys.readouterr().err
    assert repair.main(["store"]) == 3  # and what tells of it stays
    assert verify.main(["store"]) == 3
    assert "store: split test is gone" in capsys.readouterr().err
    Path("store/zarr.json").unlink()  # on purpose
    assert repair.main(["store"]) == 0
    assert verify.main(["store"]) == 0


@pytest.mark.parametrize(("layout", "name"), [("zarr", "zarr.json"), ("arrow", "dataset_dict.json")])
def test_what_opens_the_folder_for_plain_readers_is_missed(
    work: Path, capsys: pytest.CaptureFixture[str], layout: str, name: str
) -> None:
    assert label("store", labels={"layout": layout}) == 0
    whole = Path("store", name).read_bytes()
    for data, what in ((None, "is gone, and plain readers need it"), (b"{}", "does not list these splits")):
        Path("store", name).unlink() if data is None else Path("store", name).write_bytes(data)
        capsys.readouterr()
        assert verify.main(["store"]) == 3
        assert one_line(capsys) == f"store: {name} {what}; `softlabels repair` writes it again"
        assert repair.main(["store"]) == 0
        assert f"store: {name} written again" in capsys.readouterr().out
        assert Path("store", name).read_bytes() == whole
        assert verify.main(["store"]) == 0
    other = Path("store", "dataset_dict.json" if layout == "zarr" else "zarr.json")
    other.write_text("{}")
    assert verify.main(["store"]) == 3
    capsys.readouterr()
    assert repair.main(["store"]) == 0
    assert f"store: {other.name} removed: no split has its layout" in capsys.readouterr().out
    assert not other.exists()
    assert verify.main(["store"]) == 0


def test_stores_that_lie_together_need_nothing_above_them(store: Path) -> None:
    assert verify.main([str(store)]) == 0
    (store / "README.md").write_text("what these are")
    before = sorted(store.iterdir())
    for command in (verify, repair, verify):
        assert command.main([str(store)]) == 0
    assert sorted(store.iterdir()) == before
    assert (store / "README.md").read_text() == "what these are"


def test_files_of_others_beside_the_splits_are_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "notes.txt").write_text("")
    (store / "old").mkdir()
    assert verify.main([str(store)]) == 0
    said = [f"{store}: warning: {name} is not part of the store" for name in ("notes.txt", "old")]
    assert capsys.readouterr().err.splitlines() == said
    flip(store / "train" / "label" / "c.0")
    assert verify.main([str(store)]) == 3


def test_an_unfinished_split_hides_no_damaged_one(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "test" / "manifest.json").unlink()
    assert verify.main([str(store)]) == 2
    (store / "train" / "plan.json").unlink()
    assert verify.main([str(store)]) == 3
    said = capsys.readouterr()
    assert "test: " in said.err
    assert "train: " in said.err
    assert said.out.splitlines()[-1] == f"{store}: 1 problem and 1 unfinished"


@pytest.mark.parametrize("labels", [{"layout": "zarr"}, {"layout": "arrow"}, {"layout": "zarr", **TOPK}])
def test_repair_and_the_same_command_again_restore_the_store(
    labels: dict[str, object], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label("store", labels=labels) == 0
    before, root = digests("store"), Path("store")
    damaged = {"train": 1, "validation": 0}
    for split, shard in damaged.items():
        flip(next(root.glob(f"{split}/label/c.{shard}*"), root / split / f"data-{shard:05}.arrow"))
    sound = {file: file.stat().st_mtime_ns for file in root.glob("*/label/c.*")}
    capsys.readouterr()
    assert repair.main(["store"]) == 0
    said = capsys.readouterr()
    assert "shard 1: " in said.err
    assert f"store/test: nothing to repair, digest {before['test']}" in said.out
    assert (
        "store/train: unfinished; to be made: shard 1\nnext: run the command that made the store, such as " in said.out
    )
    assert f"it makes only these, and the store has the digest {before['train']} again" in said.out
    assert not (root / "zarr.json").exists()
    assert not (root / "dataset_dict.json").exists()
    assert verify.main(["store"]) == 2
    assert "train: UnsealedStore: store/train is under repair" in capsys.readouterr().err
    assert label("store", labels=labels) == 0
    assert "to write: 2 of 10 shards, " in capsys.readouterr().out
    assert digests("store") == before
    kept = {file for file in sound if str(damaged.get(file.parts[1])) != file.name.split(".")[1]}
    assert all(file.stat().st_mtime_ns == sound[file] for file in kept)
    assert verify.main(["store"]) == 0
    assert "train: store/train/set_aside holds parts that `repair` set aside; no reader" in capsys.readouterr().out
    assert (root / ("dataset_dict.json" if labels["layout"] == "arrow" else "zarr.json")).exists()


def test_a_store_that_lost_every_shard_is_made_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its plan and its basis stay, though no shard holds them."""
    assert label("store", labels=TOPK) == 0
    before, basis = digests("store"), {file: file.stat() for file in Path("store").glob("*/tail_basis/c.0.0")}
    for file in Path("store").glob("*/label/c.*"):
        flip(file)
    assert repair.main(["store"]) == 0
    capsys.readouterr()
    assert label("store", labels=TOPK) == 0
    said = capsys.readouterr().out
    assert "to write: 10 of 10 shards, " in said
    assert "pilot: " not in said
    assert digests("store") == before
    assert all(os.path.samestat(file.stat(), status) for file, status in basis.items())


def test_a_lost_basis_is_that_of_another_split_or_found_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("store", labels=TOPK) == 0
    before = digests("store")
    for lost, finds_it in ((("train",), False), (("test", "train", "validation"), True)):
        for split in lost:
            flip(Path("store") / split / "tail_basis/c.0.0")
        assert verify.main(["store"]) == 3
        assert repair.main(["store"]) == 0
        assert "store/train: unfinished; to be made: the basis of the tails\n" in capsys.readouterr().out
        assert label("store", labels=TOPK) == 0
        assert ("pilot: " in capsys.readouterr().out) == finds_it
        assert digests("store") == before
        assert verify.main(["store"]) == 0


def test_repair_and_encode_restore_an_encoded_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [str(store / "train"), "sparse", "--k=2", "--rank=2"]
    assert encode.main(again) == 0
    digest = open_store("sparse").digest
    basis = Path("sparse/tail_basis/c.0.0").stat()
    flip(Path("sparse/top_logit/c.0.0.0"))
    assert repair.main(["sparse"]) == 0
    assert "sparse: unfinished; to be made: shard 0" in capsys.readouterr().out
    assert encode.main(again) == 0
    assert open_store("sparse").digest == digest
    assert os.path.samestat(Path("sparse/tail_basis/c.0.0").stat(), basis)
    assert verify.main(["sparse"]) == 0


def test_repair_without_a_teacher(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What follows from the rest is written again at once; one split that cannot be repaired does not stop the others."""
    manifest = json.loads((store / "test" / "manifest.json").read_bytes())
    (store / "test" / "manifest.json").write_text(json.dumps(manifest | {"digest": "0" * 64}))
    (store / "train" / "plan.json").unlink()
    (store / "train" / "manifest.json").write_bytes(b"{}")
    assert repair.main([str(store)]) == 3
    said = capsys.readouterr()
    assert (
        f"sealed from its commit records, digest {manifest['digest']}; THE DAMAGED MANIFEST NAMED {'0' * 64}"
        in said.out
    )
    assert "DamagedManifest: neither " in said.err
    assert verify.main([str(store / "test")]) == 0
    assert repair.main([]) == 2
    assert "ConfigError: no store is named; write softlabels repair STORE" in capsys.readouterr().err
    assert repair.main(["nowhere"]) == 2
    assert "StorePathError: nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["zarr.json", "logits/zarr.json"])
def test_what_plain_readers_need_of_a_split_is_gone(store: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (store / "train" / name).unlink()
    assert verify.main([str(store)]) == 3
    assert f"train: store: {name}: is gone; `softlabels repair` writes it again" in capsys.readouterr().err


def test_repair_of_a_store_whose_manifest_was_deleted_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = open_store(store / "test").digest
    (store / "test" / "manifest.json").unlink()
    assert repair.main([str(store / "test")]) == 0
    said = capsys.readouterr().out
    assert f"{store}/test: damaged parts are in {store}/test/set_aside/1" in said
    assert "it had no manifest.json: it was unfinished, or the manifest was deleted. All shards" in said
    assert f"digest {digest}; if you know its earlier digest, compare" in said
    assert verify.main([str(store / "test")]) == 0


def test_an_unfinished_store_that_lost_its_basis_is_finished(work: Path) -> None:
    assert label("store", labels=TOPK) == 0
    before = digests("store")
    for split in Path("store").glob("*/"):
        (split / "manifest.json").unlink()
        (split / "tail_basis/c.0.0").unlink()
    assert label("store", labels=TOPK) == 0
    assert digests("store") == before
