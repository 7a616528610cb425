"""The shard loop: right values for the right rows, the same digest however it was interrupted, and its refusals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from softlabels.errors import DamagedManifest, Interrupted, LogitsError, OtherRows, Stalled, UnsealedStore
from softlabels.labels.encoding import DenseEncoding
from softlabels.labels.ensemble import log_probs
from softlabels.store import open_store
from softlabels.store.shard_writer import ShardWriter
from softlabels.system.local import LocalFolder
from softlabels.teacher.ensemble import load_ensemble
from softlabels.teacher.label import label_each, label_rows
from softlabels.teacher.resume import check_committed, explained
from softlabels.teacher.teacher import teacher_batches
from softlabels.transfer import TransferRows
from tests.teacher.conftest import ROWS, Teachers, writer_for


@pytest.mark.parametrize("layout", ["zarr", "arrow"])
@pytest.mark.parametrize("reduce", ["none", "geometric"])
def test_every_row_gets_its_teachers_logits(
    layout: str, reduce: str, tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("Linear", "Linear", weights=(1.0, 3.0)))
    with writer_for(
        tmp_path / "store", rows, ensemble, layout=layout, encoding=DenseEncoding(reduce=reduce), embed=rows.inputs
    ) as writer:
        label_rows(rows, ensemble, writer)
    store = open_store(tmp_path / "store")
    exact = ensemble.logits(rows.inputs).numpy()
    expected = log_probs(exact, 2.0, "geometric", [1.0, 3.0])
    assert np.abs(store.log_probs(range(ROWS), temperature=2.0, mean="geometric") - expected).max() < 2e-3
    assert (store.column("content_key") == rows.keys).all()
    assert (store.column("label") == rows.labels).all()
    assert (store.column("input") == rows.inputs).all()
    if reduce == "none":
        assert np.abs(store.column("logits").astype(float) + store.column("shift")[..., None] - exact).max() < 5e-3


def test_a_stopped_run_keeps_its_shards_and_ends_with_the_same_digest(
    tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble = load_ensemble(teacher("Linear", "Linear"))
    with writer_for(tmp_path / "unbroken", rows, ensemble) as writer:
        whole = label_rows(rows, ensemble, writer)
    done = []
    for allowed in (4, 5, 1, 100):  # batches until the stop; a shard takes 3
        batches: list[int] = []
        with writer_for(tmp_path / "store", rows, ensemble) as writer:
            before = set(range(4)) - set(writer.pending)
            stop = lambda seen=batches, allowed=allowed: len(seen) >= allowed  # noqa: E731
            if allowed < 100:
                with pytest.raises(Interrupted, match=r"of 4 shards left in .*store; run the same command again"):
                    label_rows(rows, ensemble, writer, should_stop=stop, progress=batches.append)
                assert before <= set(range(4)) - set(writer.pending)
                done.append(4 - len(writer.pending))
            else:
                again = label_rows(rows, ensemble, writer, should_stop=stop, progress=batches.append)
    assert done == [1, 2, 2]
    assert (again.digest, again.content_digest) == (whole.digest, whole.content_digest)


def test_nan_names_row_and_member_and_leaves_the_store_resumable(
    tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    bad = 100
    inputs = np.array(rows.inputs)
    inputs[bad, 0] = 50.0
    poisoned = replace(rows, inputs=inputs)
    ensemble = load_ensemble(teacher("NanAt", "NanAt", bound=1e30))
    ensemble.models[1].bound = 10.0  # type: ignore[assignment]
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        with pytest.raises(LogitsError, match=rf"NaN \(row {bad}, member 1\)"):
            label_rows(poisoned, ensemble, writer)
        assert writer.pending == [2, 3]
    with pytest.raises(UnsealedStore, match="2 of 4 shards"):
        open_store(tmp_path / "store")
    ensemble.models[1].bound = 1e30  # type: ignore[assignment]
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        label_rows(poisoned, ensemble, writer)
    assert open_store(tmp_path / "store").rows == ROWS


def test_batches_never_cross_shards(tmp_path: Path, rows: TransferRows, teacher: Teachers) -> None:
    ensemble = load_ensemble(teacher("Linear"))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        cut = [teacher_batches(writer.spec, shard) for shard in range(4)]
    assert cut[0] == [(0, 16), (16, 32), (32, 48)]
    assert cut[3] == [(144, 150)]


def _slow(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object], name: str) -> None:
    """A shard's `name` (add, commit) waits first."""
    quick = getattr(ShardWriter, name)

    def slow(self: ShardWriter, *args: object) -> object:
        wait()
        return quick(self, *args)

    monkeypatch.setattr(ShardWriter, name, slow)


def test_a_stopped_run_counts_the_shard_that_was_still_being_written(
    tmp_path: Path, rows: TransferRows, teacher: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, lambda: time.sleep(0.3), "commit")
    ensemble, batches = load_ensemble(teacher("Linear")), list[int]()
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        with pytest.raises(Interrupted, match="stopped with 3 of 4 shards left"):
            label_rows(rows, ensemble, writer, should_stop=lambda: len(batches) >= 4, progress=batches.append)
        assert len(writer.pending) == 3


def test_a_thread_that_hangs_is_waited_for_once_and_ends_when_it_can(
    tmp_path: Path, rows: TransferRows, teacher: Teachers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the end of the interpreter would wait for it for ever."""
    goes_on = threading.Event()
    _slow(monkeypatch, goes_on.wait, "add")
    monkeypatch.setenv("SOFTLABELS_PATIENCE", "2")
    ensemble = load_ensemble(teacher("Linear"))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        began = time.monotonic()
        with pytest.raises(Stalled, match="the disk has not taken a shard"):
            label_rows(rows, ensemble, writer)
        assert time.monotonic() - began < 3.5
        goes_on.set()
        writing = [thread for thread in threading.enumerate() if thread.name.startswith("softlabels-write")]
        for thread in writing:
            thread.join(10)
            assert not thread.is_alive()
        assert writer.pending == [0, 1, 2, 3]
        assert [path.name for path in (tmp_path / "store" / "staging").iterdir()] == ["lock"]


def test_a_record_that_is_cut_is_named_where_rows_are_others(
    tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    ensemble, seen = load_ensemble(teacher("Linear")), list[int]()
    with writer_for(tmp_path / "store", rows, ensemble) as writer, pytest.raises(Interrupted):
        label_rows(rows, ensemble, writer, should_stop=lambda: len(seen) > 4, progress=seen.append)
    path = tmp_path / "store" / "commits" / "00000.json"
    record = json.loads(path.read_bytes())
    record["payload"]["chunks"] = {}
    path.write_text(json.dumps(record))
    with pytest.raises(DamagedManifest, match=r"00000.json does not describe shard 0"):
        explained(OtherRows("other rows", remedy="give these"), LocalFolder(tmp_path / "store"), rows.keys[::-1].copy())


def test_a_shard_that_another_worker_has_just_recorded_is_not_compared(
    tmp_path: Path, rows: TransferRows, teacher: Teachers
) -> None:
    """Its files are still on their way to their names."""
    ensemble = load_ensemble(teacher("Linear", "Linear"))
    with writer_for(tmp_path / "store", rows, ensemble) as writer:
        with mock.patch("softlabels.store.commit._place"), writer_for(tmp_path / "store", rows, ensemble) as quick:
            label_each(rows, ensemble, quick, [0])
        assert writer.pending == [1, 2, 3]
        check_committed(writer, rows, ensemble)
        other = replace(rows, keys=rows.keys[::-1].copy())
        error = OtherRows("other rows", remedy="give those")
        assert explained(error, writer.folder, other.keys) is error
