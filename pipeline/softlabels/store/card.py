"""The store's card: README.md with the front matter of a Hugging Face dataset card, so that a team that receives the folder
knows what it holds, how faithful it is and how to load it, with our software or without. Names come from recipes and from
strangers' stores: `markdown` keeps them in their place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import UNSET

from softlabels.errors import one_line
from softlabels.labels.fidelity import Fidelity, by_temperature, nats
from softlabels.labels.lost import LostTable
from softlabels.store.columns import stored_name
from softlabels.store.features import Feature, features, in_front_matter
from softlabels.store.markdown import code, escaped, yaml_lines
from softlabels.store.paths import BASIS_FILE
from softlabels.store.records import Manifest
from softlabels.store.spec import Parent, Spec, TargetSpec

FRONT_MATTER = "---\ntags: [soft-labels, knowledge-distillation]"  # how every card begins


def store_card(manifest: Manifest, said: Sequence[str] = ()) -> str:
    """The card of one split's store; `said`: what the checks say of its labels."""
    spec = manifest.spec
    files = {spec.transfer_set.split: "*.arrow"} if spec.layout == "arrow" else {}
    return "\n\n".join(
        [
            _front_matter(manifest, files),
            f"{_title(spec)} ({escaped(spec.transfer_set.split)})",
            "\n".join([_what(manifest), *(f"- Checks: {line}" for line in said)]),
            "## Fidelity\n\n" + "\n\n".join(_lost(target, manifest.lost[target.name]) for target in spec.targets),
            "## How to load\n\n" + _loading(manifest, "PATH"),
            f"`digest` `{manifest.digest}`\n\n`content_digest` `{manifest.content_digest}`",
        ]
    ) + "\n"  # fmt: skip


def root_card(manifests: dict[str, Manifest], shared: Sequence[str] = ()) -> str:
    """The card of a folder that holds one store a split; `shared` says which rows splits share, a line each."""
    first = next(iter(manifests.values()))
    files = {split: f"{split}/*.arrow" for split in manifests} if first.spec.layout == "arrow" else {}
    rows = [
        f"| [{escaped(split)}]({quote(split)}/README.md) | {m.spec.rows:,} | `{m.digest[:16]}` | `{m.content_digest[:16]}` |"
        for split, m in manifests.items()
    ]
    return "\n\n".join(
        [
            _front_matter(first, files),
            _title(first.spec),
            "| split | rows | digest | content digest |\n| --- | --- | --- | --- |\n" + "\n".join(rows),
            *(["Rows that splits share:\n\n" + "\n".join(f"- {escaped(line)}" for line in shared)] if shared else []),
            _what(first, rows=False),
            "## How to load\n\n" + _loading(first, f"PATH/{next(iter(manifests))}"),
        ]
    ) + "\n"  # fmt: skip


def _title(spec: Spec) -> str:
    return f"# Soft labels: {escaped(spec.teacher.name)} on {escaped(spec.transfer_set.name)}"


def fidelity_table(fidelity: dict[str, Fidelity]) -> str:
    """The fidelity table in Markdown."""
    lines = ["| T | mean KL | largest KL | tail mass error | top-1 agreement |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {t} | {nats(f.kl_mean)} | {nats(f.kl_max)} | {f.tail_mass_error:.2e} | {f.top1_agreement:.6f} |"
        for t, f in by_temperature(fidelity)
    ]
    return "\n".join(lines)


def _lost(target: TargetSpec, lost: LostTable) -> str:
    """What storing a target lost, with what it was measured against."""
    title = f"**{target.name}**: w" if target.name else "W"
    if target.encoding.target == "values":
        what = f"{title}hat storing lost, against the exact values when they were written."
        line = "unknown" if lost.errors is None else f"{lost.errors.rmse:.2e} | {lost.errors.largest:.2e}"
        table = f"| root of the mean squared error | largest error |\n| --- | --- |\n| {line} |"
        return f"{what}\n\n{'It was not measured.' if lost.errors is None else table}"
    if not lost.fidelity:
        return f"{title}hat storing lost, against the exact logits, is unknown."
    step = target.encoding.measured_share(target.label_space.classes)
    kind, same = "distributions", "the top class is"
    if target.encoding.target == "sigmoid":
        kind, same = "rows of classes, summed over the classes,", "all decisions are"
    measured = f"all stored {kind}" if step == 1 else f"one of {step} stored {kind} evenly spread"
    return (
        f"{title}hat storing lost, against the exact logits when they were written: KL(exact || stored) in\n"
        f"nats over {measured.removesuffix(',')}, and how often {same} the same.\n\n" + fidelity_table(lost.fidelity)
    )


def _front_matter(manifest: Manifest, files: dict[str, str]) -> str:
    """For the hub; paths are not shortened."""
    spec = manifest.spec
    fields: dict[str, object] = {"pretty_name": one_line(f"{spec.teacher.name} on {spec.transfer_set.name}")}
    fields |= licence_fields(manifest) | (as_dataset("default", files, features(spec)) if files else {})
    return "\n".join([FRONT_MATTER, *yaml_lines(fields), "---"])


def as_dataset(config: str, files: Mapping[str, str], found: Mapping[str, Feature]) -> dict[str, list[Any]]:
    """What the front matter says of files, a pattern a split, with these columns: from it `datasets` has the classes' names."""
    data = [{"split": split, "path": pattern} for split, pattern in files.items()]
    return {
        "configs": [{"config_name": config, "data_files": data}],
        "dataset_info": [{"config_name": config, "features": in_front_matter(found)}],
    }


def licence_fields(manifest: Manifest) -> dict[str, object]:
    """What the front matter says of licences, if anything is known."""
    given = manifest.about.teacher_licence or manifest.about.transfer_licence
    return {"license": "other", "license_name": one_line(licences(manifest))} if given else {}


def licences(manifest: Manifest) -> str:
    """Those of teacher and data."""
    about = manifest.about
    return f"teacher: {about.teacher_licence or 'not stated'}; data: {about.transfer_licence or 'not stated'}"


def _folds(spec: Spec) -> str:
    """Who labelled the rows, where folds did."""
    return "" if spec.folds is UNSET else f", each row labelled by those of {spec.folds} folds that did not see it"


def _what(manifest: Manifest, *, rows: bool = True) -> str:
    spec = manifest.spec
    members = "\n".join(
        f"  - {code(m.model)}, weight {m.weight:g}" + (f", weights digest `{m.weights[:16]}`" if m.weights else "")
        for m in spec.teacher.members
    )
    lines = [
        f"- Teacher: **{escaped(spec.teacher.name)}** in {escaped(spec.teacher.precision)}, {len(spec.teacher.members)} "
        f"member{'s' * (len(spec.teacher.members) > 1)}{_folds(spec)}:\n{members}",
        f"- Transfer set: **{escaped(spec.transfer_set.name)}**"
        + (f", revision {code(spec.transfer_set.revision)}" if spec.transfer_set.revision else "")
        + (f", split {escaped(spec.transfer_set.split)}, {spec.rows:,} rows" if rows else ""),
        f"- Licences: {escaped(licences(manifest))}",
        *([] if spec.parents is UNSET else [f"- Made of stores: {_parents(spec.parents)}"]),
        *(f"- {_space(target)}" for target in spec.targets),
        f"- Inputs: {'embedded, as prepared' if spec.inputs == 'embed' else 'not here: rows are found by content key'}"
        f" (prepared by {code(spec.preprocessing.function)})",
    ]
    upto = "up to " if spec.ragged else ""
    if spec.of_tokens:
        vocabulary = next(one for each in spec.targets if (one := each.label_space.vocabulary) is not UNSET)
        lines.append(
            f"- Sequences: {upto}{spec.positions} positions a row, each a distribution of the next token; padding and the ends "
            f"of documents are masked; vocabulary `{str(vocabulary)[:16]}`"
        )
    elif spec.positions is not None:
        lines.append(f"- Positions: {upto}{spec.positions} a row; `position_mask` is 1 where one counts")
    size = f"{manifest.bytes_per_position:.1f}".removesuffix(".0")
    last = f"{size} bytes a position; layout {spec.layout}"
    kept = [f"{f'of {each.name}: ' * bool(each.name)}{_encoding(each)}" for each in spec.targets]
    return "\n".join([*lines, f"- Encoding: {'; '.join(kept)}, {last}"])


def _parents(parents: Sequence[Parent], shown: int = 8) -> str:
    """How a store was made of others, and the digests of these."""
    each = [f"{parent.how} `{parent.digest[:16]}`" for parent in parents]
    return ", ".join(each[:shown]) + (f" and {len(each) - shown} more" if len(each) > shown else "")


def _space(target: TargetSpec) -> str:
    """What a target is over."""
    space = target.label_space
    names = ", ".join(map(escaped, space.names[:20])) if space.names else "no names"
    more = ", ..." if space.names and len(space.names) > 20 else ""
    what = {
        "softmax": f"{space.classes} classes ({names}{more})",
        "sigmoid": f"{space.classes} classes, each for itself ({names}{more})",
        "values": f"vectors of {space.classes} ({names}{more})",
    }[target.encoding.target]
    return f"Target **{target.name}**: {what}" if target.name else f"Label space: {what}"


def _encoding(target: TargetSpec) -> str:
    known_at = "" if target.encoding.known_at is UNSET else f", known at T={target.encoding.known_at:g} alone"
    words = target.encoding.words(target.label_space.classes, BASIS_FILE)
    return f"{words}{known_at}, reduce: {target.encoding.reduce}"


def _loading(manifest: Manifest, path: str) -> str:
    """The section "How to load" for the store at `path`: a part for each target."""
    spec = manifest.spec
    label = "With plain zarr" if spec.layout == "zarr" else "With `datasets`"
    parts = []
    for target in spec.targets:
        plain, title = _plain(spec, target, json.dumps(path)), f"**{target.name}**. " if target.name else ""
        parts.append(
            f"{title}{label}; {target.encoding.how}:\n\n```python\n{plain}\n```\n\n"
            f"With `softlabels`, every chunk checked, members averaged:\n\n```python\n{_ours(spec, target, path)}\n```"
        )
    return "\n\n".join(parts)


def _plain(spec: Spec, target: TargetSpec, path: str) -> str:
    """Lines that read a target without us, by the names that its columns have in the store."""
    code = target.encoding.code(spec.layout, path, target.label_space.classes, positions=spec.positions is not None)
    for name in spec.only(target.name).soft_columns:
        code = re.sub(rf"([\"']){name}\1", rf"\g<1>{stored_name(target.name, name)}\g<1>", code)
    return code


def _ours(spec: Spec, target: TargetSpec, path: str) -> str:
    lead = "(8, " if spec.positions is None else "(8, positions, "
    temperature = 4.0 if target.encoding.known_at is UNSET else target.encoding.known_at
    call, what = {
        "softmax": (
            f"log_p = store.log_probs(range(8), temperature={temperature})",
            "classes), the ensemble's distribution",
        ),
        "sigmoid": (
            f"p = store.probabilities(range(8), temperature={temperature})",
            "classes), the ensemble's probabilities",
        ),
        "values": ("values = store.values(range(8))", "values), the ensemble's mean"),
    }[target.encoding.target]
    only = f".only({json.dumps(target.name)})" if target.name else ""
    opened = f"from softlabels import open_store\n\nstore = open_store({json.dumps(path)}){only}\n"
    return f"{opened}{call}  # {lead}{what}"
