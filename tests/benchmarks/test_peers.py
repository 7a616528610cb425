"""The harness of peers: ours and NumPy give the rows that were written and go on where they stopped; who is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import loader, offline_online, performance, resume, write_path
from benchmarks.peers import environments, run
from benchmarks.peers.columns import KINDS, make
from benchmarks.peers.harness import PEERS, Peer, Session, ways

ROWS = 1300  # three chunks of 512 rows, the last one short


def asked(capsys: pytest.CaptureFixture[str], mode: str, module: str, source: Path, folder: Path) -> dict[str, Any]:
    run.main([mode, module, str(source), str(folder), f"--place={folder.parent / 'place'}", "--seconds=0"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["found"][mode]
    return found


@pytest.mark.parametrize("module", ["with_numpy", "with_softlabels"])
def test_rows_are_those_that_were_written_and_none_is_lost(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "rows", "dense", ROWS)
    arguments = (module, tmp_path / "rows", tmp_path / "data")
    written = asked(capsys, "write", *arguments)
    assert written["rows"] == ROWS
    assert written["bytes"] == ROWS * 2016 <= written["stored"]
    for found in asked(capsys, "read", *arguments).values():
        assert [epoch["rows"] for epoch in found["epochs"]] == [ROWS] * run.LEAST
        assert 1 <= found["mixed"] <= 3
    asked(capsys, "stop", *arguments)
    for way, found in asked(capsys, "resume", *arguments).items():
        keeps = "DataLoader" not in way
        assert (found["keeps"], found["lost"], found["repeated"], found["same_order"]) == (
            keeps, 0, 0 if keeps else 1024, keeps,
        )  # fmt: skip


def test_a_batch_that_is_not_what_was_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "rows", "topk", ROWS)
    asked(capsys, "write", "with_numpy", tmp_path / "rows", tmp_path / "data")
    np.load(tmp_path / "data" / "top_class.npy", mmap_mode="r+")[:] += 1
    with pytest.raises(ValueError, match="the column top_class of a batch is not what was written"):
        asked(capsys, "read", "with_numpy", tmp_path / "rows", tmp_path / "data")


def test_a_peer_that_cannot_be_asked_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "peers")
    (tmp_path / "peers" / "broken" / "bin").mkdir(parents=True)
    (tmp_path / "peers" / "broken" / "bin" / "python").touch()
    (tmp_path / "peers" / "broken" / environments.FAILED).write_text("no wheel\n")
    session = Session(tmp_path, [Peer("A", "with_a", "absent"), Peer("B", "with_b", "broken")])
    assert session.ask("write", "dense", 10) == {"write": {}}
    assert [line for line in session.notes() if "not measured" in line] == [
        "A: not measured, not installed: run `make bench-peers`.", "B: not measured, did not install: no wheel.",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_each_peer_gives_what_it_wrote(peer: Peer, kind: str, tmp_path: Path) -> None:
    why = environments.reason(peer.environment) if peer.environment else None
    if why is not None:
        pytest.skip(f"{peer.name}: {why}")
    session = Session(tmp_path, [peer])
    answers = resume.stopped_and_resumed(session, kind, 2048)
    session.ask("read", kind, 2048)
    assert session.failed == {}
    assert all("lost" in found for found in answers[peer.name].values())
    assert len(ways(answers, resume.show)) == len(answers[peer.name])


@pytest.mark.slow
def test_the_pages_and_the_picture(tmp_path: Path) -> None:
    some = ["--rows=1300", "--peers", "softlabels", "NumPy"]
    for question in (loader, resume, write_path):
        name = question.__name__.rpartition(".")[2]
        question.main([*some, f"--output={tmp_path / name}.md"])
        page = (tmp_path / f"{name}.md").read_text()
        assert "| softlabels |" in page
        assert "| NumPy |" in page
        assert "not measured" not in page
    offline_online.main(["--rows=256", "--epochs=1", f"--output={tmp_path / 'offline_online'}.md"])
    before = (performance.DOCS / "performance.md").read_text()
    (tmp_path / "performance.md").write_text(before)
    performance.main([f"--results={tmp_path}", f"--docs={tmp_path}"])
    after = (tmp_path / "performance.md").read_text()
    assert after.count("\n## ") == before.count("\n## ")
    assert "tensorstore |" not in after
    assert (tmp_path / "performance.png").stat().st_size > 10_000
