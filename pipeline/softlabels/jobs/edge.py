"""What is exported for small devices, beside its student and its teacher: scores, bytes, milliseconds a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from softlabels.errors import ExportError
from softlabels.jobs.judge import judge_beside_teacher
from softlabels.jobs.splits import Split
from softlabels.models.estimator import Estimator
from softlabels.report.table import Table, results_table
from softlabels.student.export import as_onnx
from softlabels.student.latency import SIZES, Timed
from softlabels.student.onnx_file import OnnxModel
from softlabels.student.sweep import StudentTraining

_SLOWER = 1.1  # times as long: below it clocks differ by as much


def score_tables(models: Mapping[str, nn.Module], split: Split, training: StudentTraining) -> dict[str, Table]:
    """Of each target, by its name: scores of the stored teacher and of these models over all rows of a split."""
    found, tables = judge_beside_teacher(models, split, training), {}
    for name, kind in split.kinds.items():
        lines = [(title, [scores["targets"][name] if name else scores]) for title, scores in found.items()]
        near = split.store.only(name).encoding.near_1
        tables[name] = results_table(lines, temperatures=[near], target=kind)
    return tables


def in_turn(models: Sequence[nn.Module], rows: Tensor) -> tuple[Timed, int, str]:
    """The members of a teacher, one after the other, each in ONNX Runtime on one thread where it can be written so: as they are
    timed, their bytes (of an estimator of scikit-learn those of its file), and what a table adds to their name.
    """
    runs: list[nn.Module] = []
    size, others = 0, set[str]()
    for model in models:
        if isinstance(model, Estimator):
            others.add("scikit-learn")
            size += model.file_size
            runs.append(model)
            continue
        try:
            data = as_onnx(model, rows)
        except ExportError:
            others.add("PyTorch")
            size += sum(tensor.numel() * tensor.itemsize for tensor in model.state_dict().values())
            runs.append(model)
        else:
            size += len(data)
            runs.append(OnnxModel(data, named=True, threads=1))
    note = f" ({', '.join(sorted(others))})" if others else ""
    return (lambda batch: [run(batch) for run in runs], rows), size, note


def latency_table(found: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> tuple[Table, list[str]]:
    """Bytes and milliseconds a row of each, side by side on one thread; and a line where eight bits do not pay."""
    titles = ("", "bytes", *(f"ms a row, batch {size}" for size in SIZES))
    lines = tuple((name, f"{sizes[name]:,}", *(f"{each:.4g}" for each in found[name])) for name in found)
    said = []
    if {"onnx", "int8"} <= {*found}:
        ratios = [new / old for new, old in zip(found["int8"], found["onnx"], strict=True)]
        against = [
            f"{ratio:.1f} times as long a row in batches of {size}"
            for size, ratio in zip(SIZES, ratios, strict=True)
            if ratio > _SLOWER
        ]
        if sizes["int8"] >= sizes["onnx"]:
            against.append("no fewer bytes")
        said = [f"int8 takes {', '.join(against)}: such a small student may as well stay in float32"] * bool(against)
    return Table(titles, lines), said
