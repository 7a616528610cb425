"""The tracker of docs/training.md in a run that is stopped and resumed: `make wandb`, in an environment of its own."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softlabels.errors import Interrupted
from softlabels.student.config import TrainingConfig
from softlabels.student.learner import Student
from softlabels.student.trainer import Trainer
from tests.docs.test_code_blocks import ROOT, blocks
from tests.student.runs import MemoryBatches, examples, net

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
[CODE] = [code for _, code, _ in blocks((ROOT / "docs" / "training.md").read_text()) if "import wandb" in code]


def logged(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: after 7 bytes LevelDB's log, blocks of 32 KiB of pieces (checksum, length, type, data)."""
    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def records(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """The id of the offline runs below a folder, and what each was told, in the order of time."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for file in sorted(folder.rglob("run-*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        name = ""
        for data in logged(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.run_id or name
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            found += [(name, items)] if items else []
    return found


def test_a_resumed_run_goes_on_under_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("wandb")
    namespace: dict[str, type] = {}
    exec(compile(CODE, "training.md", "exec"), namespace)
    asked = iter([False] * 5 + [True])  # three steps an epoch

    def run(should_stop=lambda: False) -> None:
        students = [
            Student.begin(name, TrainingConfig(epochs=3, threads=1, device="cpu", batch_size=96), net) for name in "ab"
        ]
        batches = MemoryBatches(examples(), 96), MemoryBatches(examples(1), 50, seed=None)
        Trainer(students, *batches, tmp_path / "digits", {}, tracker=namespace["Wandb"]).run(should_stop)

    with pytest.raises(Interrupted):
        run(lambda: next(asked))
    run()
    assert not [record for record in caplog.records if "told nothing more" in record.getMessage()]
    for name in "ab":
        lines = (tmp_path / "digits" / name / "metrics.jsonl").read_text().splitlines()[:3]
        told = [items for run_id, items in records(tmp_path / "digits" / name) if run_id == f"digits-{name}"]
        assert [float(items["train_loss"]) for items in told] == [json.loads(line)["train_loss"] for line in lines]
        assert [int(items["_step"]) for items in told] == [json.loads(line)["step"] for line in lines]
    assert "wandb" in sys.modules
