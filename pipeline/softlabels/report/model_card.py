"""The card of a run: README.md with the front matter of a Hugging Face model card, so that whoever receives the folder knows
what the students are, what made them, how good they were found to be, how to load one, and what not to trust them with.

Made from the run's own files and the manifests of its stores. Names in those come from whoever made the store: `markdown`
keeps them in their place. Neighbour: a store's own card is `softlabels.store.card`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabels.errors import one_line
from softlabels.labels.fidelity import nats
from softlabels.labels.targets import Target
from softlabels.objects import ObjectSpec
from softlabels.report.by_class import class_lines, class_table, confusion_table, has_classes
from softlabels.report.comparison import (
    Student,
    best_student,
    comparison_body,
    distilled_students,
    hard_student,
    judged,
)
from softlabels.report.measures import Results, shown
from softlabels.report.model_loading import Shape, loading
from softlabels.report.pruned import remains
from softlabels.report.spread import spread
from softlabels.report.table import as_markdown
from softlabels.report.views import views
from softlabels.store.card import licence_fields, licences
from softlabels.store.markdown import code, escaped, without_folders, yaml_lines
from softlabels.store.records import Manifest
from softlabels.store.spec import Spec

Recipe = Mapping[str, Any]
_SHOWN = 20  # classes, members and students that are listed one by one
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Keys of the recipe's section training as the card says them, where they have another value than this default.
_TRAINING: dict[str, tuple[str, Any]] = {
    "mean": ("members averaged", None), "logit_standardization": ("logits standardised", False),
    "loss_args": ("arguments of the loss", {}), "epochs": ("epochs", None), "batch_size": ("batch size", None),
    "micro_batch": ("rows a forward pass", None), "precision": ("precision of the forward pass", "float32"),
    "clip_norm": ("gradients clipped to norm", None), "max_norm": ("norm of a unit's incoming weights at most", None),
    "ema": ("moving average of the weights, decay", None), "keep": ("kept epoch:", None),
    "members": ("members of the teacher that were learnt from", None), "weights": ("their weights", None),
    "class_weights": ("weights of the classes", None), "targets": ("of single targets", {}),
    "positions": ("positions of a row that a step takes", None),
    "hard_label_fraction": ("share of rows whose hard label was used", 1.0),
    "row_fraction": ("share of rows used", 1.0), "only_classes": ("rows of these classes only", None),
}  # fmt: skip

_GIVES: Mapping[Target, str] = {
    "softmax": "the logits of {} classes{}; softmax of them is its prediction",
    "sigmoid": "the logits of {} classes{}; sigmoid of each is the probability of that class",
    "values": "{} real values{}",
}


def model_card(
    results: Results,
    recipe: Recipe,
    *,
    stores: Mapping[str, Manifest],
    parameters: int,
    prepare: ObjectSpec,
    folders: Sequence[str],
    pictures: Sequence[str] = (),
    inputs: Shape | None = None,
) -> str:
    """The card of a finished run.

    Args:
        results: what results.json holds.
        recipe: what config.yaml holds.
        stores: the manifest of each split's store.
        parameters: of one student.
        prepare: what made the students' inputs, with digests in place of files.
        folders: names of the students' folders in the run.
        pictures: names of PNG files in the run, shown below the results.
        inputs: dtype and shape of one prepared row, where they are known.
    """
    first = stores.get("train") or next(iter(stores.values()))
    name = recipe.get("name", "student")
    parts = [
        _front_matter(results, recipe, first),
        f"# {escaped(name)}: students of {escaped(first.spec.teacher.name)}",
        _what(results, recipe, first, parameters, prepare),
        *(["## What remains\n\n" + remains(results)] if "pruned" in results else []),
        "## Training\n\n" + _training(results, recipe, stores),
        "## Results\n\n" + comparison_body(results).rstrip() + "\n\n" + _judged(results, recipe, stores),
        *(f"![{escaped(picture)}]({picture})" for picture in pictures),
        *([f"## By class\n\n{_by_class(results)}"] if _by_class(results) else []),
        "## How to load\n\n" + loading(results, recipe, folders, prepare, inputs),
        "## Files\n\n" + _files(pictures, folders, is_pruned="pruned" in results),
        "## Limits\n\n" + _limits(results, first),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(results: Results, recipe: Recipe, first: Manifest) -> str:
    """For the hub."""
    fields = licence_fields(first)
    source = str((recipe.get("transfer_set") or {}).get("source") or first.about.source.partition("; ")[0])
    if _HUB_ID.fullmatch(source):
        fields["datasets"] = [one_line(source)]
    index = [
        _index_entry(view, name, student, first)
        for name, view in views(results).items()
        for student in view["students"][:_SHOWN]
        if all("accuracy" in scores for scores in student["scores"])
    ]
    if index:
        fields["model-index"] = index
    return "\n".join(["---", "tags: [knowledge-distillation, soft-labels]", *yaml_lines(fields), "---"])


def _index_entry(results: Results, target: str, student: Student, first: Manifest) -> dict[str, object]:
    """What the hub lists of one student: its mean accuracy, of a `target` that has a name."""
    accuracy = spread([scores["accuracy"] for scores in student["scores"]])
    dataset = one_line(first.spec.transfer_set.name)
    result = {
        "task": {"type": "classification"},
        "dataset": {"name": dataset, "type": dataset, "split": one_line(results["split"])},
        "metrics": [
            {"type": "accuracy", "value": round(accuracy.mean, 6), "name": f"accuracy, mean of {accuracy.count}"}
        ],
    }
    return {"name": one_line(", ".join(filter(None, (student["label"], target)))), "results": [result]}


def _what(results: Results, recipe: Recipe, first: Manifest, parameters: int, prepare: ObjectSpec) -> str:
    spec, student = first.spec, recipe["student"]
    members = [
        f"  - {code(member.model)}, weight {member.weight:g}"
        + (f", weights digest `{member.weights[:16]}`" if re.fullmatch("[0-9a-f]+", member.weights) else "")
        for member in spec.teacher.members[:_SHOWN]
    ]
    more = len(spec.teacher.members) - _SHOWN
    inputs = "as those that its labels came with"  # of arrays, of which nothing says how they were made
    if prepare.class_path:
        inputs = f"prepared by {code(prepare.class_path)} with {code(without_folders(prepare.init_args))}"
    count = len(spec.teacher.members)
    return "\n".join(
        [
            f"- Student: {_object(student)}, {parameters:,} parameters",
            *(_gives(spec.only(name), name) for name in views(results)),
            f"- Takes inputs {inputs}",
            f"- Teacher: **{escaped(spec.teacher.name)}** in {escaped(spec.teacher.precision)}, {count} "
            f"member{'s' * (count > 1)}, not needed and not included:",
            *members,
            *([f"  - and {more} more"] if more > 0 else []),
            f"- Licences: {escaped(licences(first))}; none is given for the students here",
        ]
    )


def _gives(spec: Spec, target: str) -> str:
    """What a student says of a target."""
    space = spec.label_space
    names = [escaped(name) for name in (space.names or ())[:_SHOWN]]
    classes = f" ({', '.join(names)}{', ...' if len(space.names or ()) > _SHOWN else ''})" if names else ""
    of = f" of {code(target)}" if target else ""
    each = "" if spec.positions is None or spec.of_tokens else f", for each of {spec.positions} positions"
    return f"- Gives{of} {_GIVES[spec.encoding.target].format(space.classes, classes)}{each}"


def _object(section: Mapping[str, Any]) -> str:
    """A class of the recipe and what it is built with."""
    return f"{code(section['class_path'])} with {code(without_folders(section.get('init_args') or {}))}"


def _training(results: Results, recipe: Recipe, stores: Mapping[str, Manifest]) -> str:
    training = recipe.get("training") or {}
    transfer_set = next(iter(stores.values())).spec.transfer_set
    revision = f", revision {code(transfer_set.revision)}" if transfer_set.revision else ""
    named = results.get("store", "")
    stores_said = " + ".join(code(without_folders(one)) for one in (named if isinstance(named, list) else [named]))
    given = {said: training[key] for key, (said, default) in _TRAINING.items() if training.get(key, default) != default}
    lines = [
        f"- Transfer set: **{escaped(transfer_set.name)}**{revision}; soft labels from the store {stores_said}:",
        *(
            f"  - {escaped(split)}: {manifest.spec.rows:,} rows, digest {_digests(manifest)}"
            for split, manifest in stores.items()
        ),
        *(f"- {escaped(student['label'])}: {_settings(student)}" for student in results["students"][:_SHOWN]),
        f"- Seeds: {', '.join(map(str, results['seeds']))}: one student per seed and kind",
        *(f"- {key}: {_object(training[key])}" for key in ("optimizer", "scheduler") if training.get(key)),
        f"- {'; '.join(f'{said} {escaped(value)}' for said, value in given.items())}",
        f"- {_order(results.get('order'))}",
        "- All settings, to repeat the run: `config.yaml`",
    ]
    return "\n".join(lines)


def _digests(manifest: Manifest) -> str:
    return " + ".join(f"`{digest}`" for digest in manifest.digests)


def _order(order: Mapping[str, Any] | None) -> str:
    """What the order of the rows went by; runs of earlier versions say nothing of it."""
    if order is None or order.get("by") != "keys":
        return "Rows in an order that went by the store's content and chunks"
    return f"Rows in an order of their keys and the seed, shuffled in blocks of {escaped(order['block'])}"


def _settings(student: Student) -> str:
    """What a student learnt from; of a distilled one the loss as a formula."""
    if student["kind"] == "hard":
        return "hard labels only"
    if "targets" in student:
        return "; ".join(f"{code(name)}: {_loss(settings)}" for name, settings in student["targets"].items())
    return _loss(student["settings"])


def _loss(settings: Mapping[str, Any]) -> str:
    """The weights and the loss of settings."""
    alpha = settings.get("alpha")
    if isinstance(alpha, int | float):
        weights = f"hard weight {1 - alpha:g}, soft weight {alpha:g}"
    elif alpha is not None:
        weights = f"alpha {alpha}: soft weight alpha, hard weight 1 - alpha"
    else:
        weights = f"hard weight {settings.get('hard_weight')}, soft weight {settings.get('soft_weight')}"
    at = f" at T = {escaped(settings['temperature'])}" if "temperature" in settings else ""
    share = f", times {escaped(settings['weight'])}" if settings.get("weight", 1) != 1 else ""
    return f"{escaped(weights)}, loss {code(settings.get('loss'))}{at}{share}"


def _judged(results: Results, recipe: Recipe, stores: Mapping[str, Manifest]) -> str:
    split, cut = results["split"], (recipe.get("training") or {}).get("validation", 0)
    chosen = (
        "the validation split" if "validation" in stores else f"a share of {cut} of the training rows" if cut else ""
    )
    said = (
        f"Judged on the split {escaped(split)!s} of the transfer set, once, when all students were trained"
        if split == "test"
        else "Judged on the validation rows, on which epochs were compared too: expect more errors on new rows"
    )
    return f"{said}. " + (
        f"Epochs were compared on {chosen}." if chosen else "No rows were held out to compare epochs."
    )


def _by_class(results: Results) -> str:
    """Recall, F1 and mistakes of the best student by validation, class by class."""
    if "targets" in results:
        found = {name: _by_class(view) for name, view in views(results).items()}
        return "\n\n".join(f"### {escaped(name)}\n\n{text}" for name, text in found.items() if text)
    student = best_student(results)
    runs, names = student["scores"], results.get("class_names")
    if not has_classes(runs):
        return ""
    tables = [class_table(runs, names), confusion_table(runs, names)]
    mean = f", means over {len(runs)} seeds" if len(runs) > 1 else ""
    return "\n".join(
        [
            f"Of the student {escaped(student['label'])} on the split {escaped(results['split'])}{mean}.\n",
            *(as_markdown(table) for table in tables if table is not None),
            *(f"- {escaped(line)}" for line in class_lines(runs, names)),
        ]
    )


def _files(pictures: Sequence[str], folders: Sequence[str], *, is_pruned: bool) -> str:
    shown = ", ".join(f"`{name}`" for name in folders[:_SHOWN]) + (", ..." if len(folders) > _SHOWN else "")
    lines = [
        "- `config.yaml`: the recipe that repeats the run. It names classes, and a class is code. From a run that was "
        "made elsewhere, softlabels imports only its own classes, unless you give `--trust`. Read the file first",
        "- `run.json`: settings and store digests that identify the run",
        "- `results.json`, `results.md`: every score of every student",
        *([f"- {', '.join(f'`{picture}`' for picture in pictures)}: the same as pictures"] if pictures else []),
        *(["- `rounds`: a training run a round, and the masks that it trained under"] if is_pruned else []),
        "- `checkpoint.pt`: only for resuming; leave it out when you share the run",
        f"- a folder a student ({shown}):",
        "  - `weights.safetensors`: its weights, data without code",
        "  - `metrics.jsonl`, `tensorboard/`: its curves",
        "  - `student.onnx`, `student.pt2`, where it was exported. A `.pt2` file is unpickled by `torch.export.load`, which "
        "can run code: load one only from people you trust, and `checkpoint.pt` only with `weights_only=True`",
    ]
    return "\n".join(lines)


def _limits(results: Results, first: Manifest) -> str:
    count = len(first.spec.teacher.members)
    lines = ["- Nothing was measured on other data"]
    if distilled_students(results):
        near = "; ".join(_near(results))
        lines = [f"- A student learns its teacher's mistakes too. {near}; nothing was measured on other data"]
    scores = (run for view in views(results).values() for student in view["students"] for run in student["scores"])
    if any("nll" in run for run in scores):
        lines.append("- Its confidence is as good as ECE and NLL above say, on rows like these and nowhere else")
    if count > 1:
        lines.append(
            f"- The teacher is {count} models; a student has learned their mean, and cannot say how far they disagree"
        )
    if len(results["seeds"]) > 1:
        lines.append("- The spread over seeds is that of first weights and dropout, not of other training rows")
    else:
        lines.append("- One seed: the spread is not known")
    if hard_student(results) is None:
        lines.append("- No student was trained with hard labels only: what distilling added is not known")
    for name in views(results):
        lost, of = first.lost[name], f" of {code(name)}" if name else ""
        if lost.errors is not None:
            lines.append(
                f"- Stored values{of} differ from the teacher's exact ones by {lost.errors.largest:.2e} at most"
            )
        fidelity = lost.fidelity.get("1")
        if fidelity is not None:
            kl = f"a KL of at most {nats(fidelity.kl_max, 1)} nats at T = 1"
            lines.append(f"- Stored labels{of} differ from the teacher's exact ones by {kl}")
    return "\n".join(lines)


def _near(results: Results) -> Iterator[str]:
    """How near students are to their teacher, of each target."""
    for name, view in views(results).items():
        near = shown(view).near_teacher([student["scores"] for student in distilled_students(view)])
        yield f"{f'Of {code(name)} it' if name else 'It'} {near}" + " these {:,} {}".format(*judged(view))
