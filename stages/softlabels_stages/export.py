"""Write a trained student for use without softlabels: ONNX and torch.export, checked on real rows before they are written.

softlabels export runs/digits-xxxxxxxx/distilled-seed0       student.onnx and student.pt2 into that folder
softlabels export runs/digits-xxxxxxxx --formats=onnx           the run's only distilled student
softlabels export runs/ag_news-xxxxxxxx/distilled-seed0 --formats=hf    a folder for from_pretrained
softlabels export runs/digits-xxxxxxxx/distilled-seed0 --formats=onnx,int8 --latency --against_teacher=digits    small devices
softlabels export weights.safetensors --config=mine.yaml --store=stores/mine --out=shipped
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import ConfigError
from softlabels.jobs.edge import in_turn, latency_table, score_tables
from softlabels.jobs.judge import digest_of
from softlabels.jobs.run_files import LATENCY
from softlabels.jobs.splits import Split, all_batches, load_rows, open_splits
from softlabels.jobs.student_fit import fitted
from softlabels.jobs.students import student_heads
from softlabels.models import ModelConfig, build_model
from softlabels.models.weights import weights_digest
from softlabels.report.table import as_text
from softlabels.store import Store
from softlabels.store.markdown import without_folders
from softlabels.student.export import LOGITS, SIZES, Exported, compared, export_student
from softlabels.student.heads import Head
from softlabels.student.latency import SIZES as SPEEDS
from softlabels.student.latency import milliseconds
from softlabels.student.onnx_file import OnnxModel
from softlabels.student.sweep import StudentTraining
from softlabels.system.local import LocalFolder
from softlabels.transfer import TransferSetConfig
from softlabels_stages.arguments import Export
from softlabels_stages.commands import arguments_of
from softlabels_stages.recipe import parse
from softlabels_stages.run import PRINTED, command, suggested_python, warn
from softlabels_stages.student_folder import home_of, run_of, student_word, with_store_of, with_weights

if TYPE_CHECKING:
    from softlabels_stages.teacher_arguments import TeacherLogits

HF, ONNX, INT8 = "hf", "onnx", "int8"  # the first is a folder rather than a file


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Trace, check, write."""
    words = [student_word(word) for word in (sys.argv[1:] if argv is None else argv)]
    run = run_of(words)
    args = parse(with_store_of(run, words), Export, stage="export", doc=__doc__, positional=("from_",), run=run)
    if not args.from_:
        raise ConfigError("no student is named", remedy="write softlabels export RUN/STUDENT")
    student = with_weights(args.student, args.from_)
    there = args.source.splits()
    name = args.split or next((name for name in ("test", "validation") if name in there), there[0])
    splits = _open(args, name)
    training, splits = fitted(student, splits, args.training)
    [split] = splits.values()
    heads = student_heads(training, training.variants[0], split)
    model = build_model(student).float()
    rows = next(iter(all_batches(split, args.rows).epoch(0))).inputs
    folder = LocalFolder(args.out) if args.out else home_of(str(student.weights))
    facts = _facts(student, split, rows, heads) | {"softlabels.weights": weights_digest(model)}
    classes = [head.output or LOGITS for name, head in heads.items() if split.kinds[name] == "softmax"]
    classes += [LOGITS] * (len(heads) == 1 and bool(classes))  # of one tensor, whatever its target is called
    files = [form for form in args.formats if form != HF]
    teacher = _teacher(args, words, name, split.store)
    ranges = _calibration(args, there, name) if INT8 in files else None
    exported = export_student(model, rows, folder, formats=files, facts=facts, classes=classes, calibration=ranges)
    for found in exported:
        print(_line(found, name))
    if INT8 in files:
        _say_scores(model, exported, split, training)
    if args.latency:
        folder.put(LATENCY, json.dumps(_say_latency(exported, rows, teacher), indent=1).encode())
    if HF in args.formats:
        names = split.only(next(iter(heads))).store.class_names
        print(_line(_hugging_face(model, rows, folder.within(HF), names, args.transfer_set), name))
    again = (
        _try_next(exported[0], rows, one=len(heads) == 1)
        if exported
        else f"transformers' from_pretrained({json.dumps(str(folder.at(HF)))})"
    )
    print(f"exported: {folder}; try next: {again}")
    return 0


def _open(args: Export, name: str) -> dict[str, Split]:
    """A split of the store, with its rows."""
    return open_splits(args.source, args.transfer_set, only=name, missing=args.missing, watch=PRINTED)


def _calibration(args: Export, there: Sequence[str], checked: str) -> Tensor:
    """Prepared inputs that int8 takes its ranges from: of the training rows, where the store has them."""
    name = "train" if "train" in there else checked
    [split] = _open(args, name).values()
    rows = next(iter(all_batches(split, args.rows, seed=0).epoch(0))).inputs
    print(f"int8: activation ranges from {len(rows):,} rows of {name}")
    return rows


def _teacher(args: Export, words: Sequence[str], split: str, store: Store) -> tuple[Sequence[nn.Module], Tensor] | None:
    """The models of the teacher that is timed, and prepared inputs of it. Raises OtherWeights where the store is another's."""
    if args.latency and not {ONNX, INT8} & {*args.formats}:
        raise ConfigError("--latency is of ONNX files", remedy="give --formats=onnx, or --formats=onnx,int8")
    if args.against_teacher is None:
        return None
    if not args.latency:
        raise ConfigError(f"--against_teacher={args.against_teacher} is there to be timed", remedy="add --latency")
    from softlabels.teacher.ensemble import load_ensemble
    from softlabels.teacher.recheck import require_weights

    trust = [word for word in words if word.partition("=")[0] == "--trust"]
    recipe: TeacherLogits = parse(
        [f"--config={args.against_teacher}", *trust], arguments_of("teacher-logits"), stage="teacher-logits", doc=None
    )
    ensemble = load_ensemble(recipe.teacher)
    if any(member.weights for member in store.spec.teacher.members):
        require_weights(store, ensemble)
    else:
        warn(f"{store.path} does not name its teacher's weights: {args.against_teacher} may be another teacher")
    rows = load_rows(recipe.transfer_set, split, PRINTED).inputs[: max(SIZES)]
    return ensemble.models, torch.from_numpy(np.array(rows))


def _say_scores(model: nn.Module, exported: Sequence[Exported], split: Split, training: StudentTraining) -> None:
    """What eight bits cost, over the whole split."""
    named = len(student_heads(training, training.variants[0], split)) > 1
    [int8] = [OnnxModel(found.path.read_bytes(), named=named) for found in exported if found.form == INT8]
    for name, table in score_tables({"student": model, INT8: int8}, split, training).items():
        print(f"\n{f'{name}{chr(10)}' * bool(name)}{as_text(table)}")


def _say_latency(
    exported: Sequence[Exported], rows: Tensor, teacher: tuple[Sequence[nn.Module], Tensor] | None
) -> dict[str, Any]:
    """How large and how fast they are, in a table; and as `LATENCY` keeps it."""
    files = {found.form: found.path.read_bytes() for found in exported if found.form in (ONNX, INT8)}
    sizes, timed = {name: len(data) for name, data in files.items()}, {}
    if teacher is not None:
        run, size, note = in_turn(*teacher)
        timed[f"teacher{note}"], sizes[f"teacher{note}"] = run, size
    timed |= {name: (OnnxModel(data, named=True, threads=1), rows) for name, data in files.items()}
    speeds = milliseconds(timed)
    table, said = latency_table(speeds, sizes)
    print(f"\n{as_text(table)}", *said, sep="\n")
    return {"batches": SPEEDS, "models": {name: {"bytes": sizes[name], "milliseconds": speeds[name]} for name in timed}}


def _hugging_face(
    model: nn.Module, rows: Tensor, folder: LocalFolder, names: Sequence[str] | None, made: TransferSetConfig | None
) -> Exported:
    """The folder that transformers opens, written and compared as `from_pretrained` gives it back."""
    from softlabels.models.hf_folder import save_hf  # the extra [hf]

    model.eval().requires_grad_(False)
    prepare, sequences = (None, None) if made is None else (made.prepare, made.sequences)
    save_hf(model, folder, class_names=names, prepare=prepare, sequences=sequences)
    again = build_model(ModelConfig(f"{type(model).__module__}.{type(model).__qualname__}", {"model": str(folder)}))
    size = sum(file.stat().st_size for file in folder.at().iterdir())
    return compared(HF, folder.at(), size, again.eval(), model, rows)


def _facts(student: ModelConfig, split: Split, rows: Tensor, heads: Mapping[str, Head]) -> dict[str, Any]:
    """What whoever loads the file needs to know: what goes in, what comes out, where it is from."""
    spec, names = split.store.spec, {name: one.store.class_names for name, one in split.each.items()}
    outputs = {} if "" in heads else {"softlabels.outputs": {head.output: name for name, head in heads.items()}}
    return outputs | {
        "softlabels.inputs": {"dtype": str(rows.dtype).removeprefix("torch."), "shape": ["batch", *rows.shape[1:]]},
        "softlabels.preprocessing": {
            "function": split.prepare.class_path,
            "arguments": without_folders(split.prepare.init_args),
        },
        "softlabels.class_names": names.get("", names),
        "softlabels.student": {"class_path": student.class_path, "init_args": without_folders(student.init_args)},
        "softlabels.teacher": spec.teacher.name,
        "softlabels.transfer_set": spec.transfer_set.name,
        "softlabels.store": {"split": spec.transfer_set.split, "digest": digest_of(split.store)},
    }


def _line(found: Exported, split: str) -> str:
    opset = "" if found.opset is None else f", opset {found.opset}"
    sizes = ", ".join(str(size) for size in SIZES[:-1])
    return (
        f"{found.path}: {found.bytes:,} bytes{opset}; compared with the student on {found.rows:,} rows of {split}, in batches "
        f"of {sizes} and {SIZES[-1]}: largest difference {found.difference:.1e} of the largest output"
        f"{'' if found.agreement is None else f', same class on {found.agreement:.2%}'}"
    )


def _try_next(found: Exported, rows: Tensor, *, one: bool) -> str:
    """One line of Python that runs the file on a row of zeros; `one`: there is one output."""
    shape, dtype, path = [1, *rows.shape[1:]], str(rows.dtype).removeprefix("torch."), json.dumps(str(found.path))
    if found.form in (ONNX, INT8):
        code = (
            f"import numpy, onnxruntime; session = onnxruntime.InferenceSession({path}); "
            f'print(session.run(None, {{"inputs": numpy.zeros({shape}, "{dtype}")}}){"[0]" * one})'
        )
    else:
        code = f"import torch; print(torch.export.load({path}).module()(torch.zeros({shape}, dtype=torch.{dtype})))"
    return suggested_python(code)


if __name__ == "__main__":
    sys.exit(main())
