"""The lines on a run's card that load its best student and make inputs for it. Names come from recipes and strangers' stores:
what is no dotted path stays a comment, everything else is a literal on one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softlabels.errors import one_line
from softlabels.objects import ObjectSpec
from softlabels.report.comparison import best_seed, best_student
from softlabels.report.measures import Results
from softlabels.store.markdown import without_folders

Recipe = Mapping[str, Any]
Shape = tuple[str, Sequence[int]]  # dtype and shape of one prepared row
AUTO = {
    "softlabels.models.CausalLM": "AutoModelForCausalLM",
    "softlabels.models.SequenceClassifier": "AutoModelForSequenceClassification",
    "softlabels.models.ImageClassifier": "AutoModelForImageClassification",
}


def best_folder(results: Results, folders: Sequence[str]) -> str:
    """The folder of the best student by validation errors; where they were not counted, of the first distilled one."""
    best = best_student(results)
    name = f"{best['label'].replace(', ', '-')}-seed{results['seeds'][best_seed(results, best)]}".replace(":", "_")
    return name if name in folders else next((name for name in folders if name.startswith("distilled")), folders[0])


def loading(results: Results, recipe: Recipe, folders: Sequence[str], prepare: ObjectSpec, inputs: Shape | None) -> str:
    """Markdown: how to load the best student with `softlabels`, with transformers, and from ONNX."""
    student, folder = recipe["student"], best_folder(results, folders)
    auto = AUTO.get(student["class_path"])
    if auto and "model" in (student.get("init_args") or {}):  # whoever receives the run may not have that checkpoint
        return (
            f"`softlabels export {folder} --formats=hf` writes a folder that needs no softlabels:\n\n```python\n"
            f"import transformers\n\nmodel = transformers.{auto}.from_pretrained({f'{folder}/hf'!r})\n```\n\n"
            + _inputs(recipe, prepare, inputs)
        )
    init_args = without_folders(student.get("init_args") or {})
    arguments = f"{one_line(student['class_path'])!r}, {init_args!r}, {f'{folder}/weights.safetensors'!r}"
    ours = f"from softlabels.models import ModelConfig, build_model\n\nstudent = build_model(ModelConfig({arguments})).eval()"
    gives = "values" if results.get("target") == "values" else "logits"
    run = '(logits,) = session.run(["logits"], {"inputs": inputs})'
    if "targets" in results:
        gives = "one tensor, or a mapping of them by name"
        run = 'found = session.run(None, {"inputs": inputs})  # in the order of session.get_outputs()'
    onnx = (
        f"import onnxruntime\n\nsession = onnxruntime.InferenceSession({f'{folder}/student.onnx'!r})\n"
        f"{run}  # numpy, any number of rows"
    )
    return (
        f"With `softlabels` installed, in this folder (PyTorch; `student(torch.from_numpy(inputs))` gives {gives}):\n\n"
        f"```python\n{ours}\n```\n\n{_inputs(recipe, prepare, inputs)}\n\n"
        f"Without softlabels, after `softlabels export {folder}` has written the file and checked it against the student:\n\n"
        f"```python\n{onnx}\n```"
    )


def _inputs(recipe: Recipe, prepare: ObjectSpec, inputs: Shape | None) -> str:
    """What goes in, and the call that makes it of raw rows."""
    what = "Inputs"
    if inputs is not None:
        what += f" are {one_line(inputs[0])}, of shape ({', '.join(['rows', *map(str, inputs[1])])})"
    parts = prepare.class_path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() and part.isascii() for part in parts):
        return f"{what}; the run does not say how they are made from raw rows."
    module, name = ".".join(parts[:-1]), parts[-1]
    columns = ", ".join(map(str, (recipe.get("transfer_set") or {}).get("inputs") or ())) or "the inputs"
    given = without_folders(dict(prepare.init_args))
    arguments = f", **{one_line(repr(given), None)}" if given else ""
    code = f"from {module} import {name}\n\ninputs = {name}(rows{arguments})  # rows: a list of {one_line(columns)}, one a row"
    return f"{what}, made from raw rows by the recipe's prepare function:\n\n```python\n{code}\n```"
