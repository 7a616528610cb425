"""The store's card: README.md with the front matter of a Hugging Face dataset card, so that a team that receives the folder
knows what it holds, how faithful it is and how to load it, with our software or without. Names come from recipes and from
strangers' stores: `markdown` keeps them in their place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from softlabels.errors import one_line
from softlabels.labels.fidelity import Fidelity, by_temperature, nats
from softlabels.store.markdown import code, escaped, yaml_lines
from softlabels.store.paths import BASIS_FILE
from softlabels.store.spec import Manifest, Spec

FRONT_MATTER = "---\ntags: [soft-labels, knowledge-distillation]"  # how every card begins


def store_card(manifest: Manifest, said: Sequence[str] = ()) -> str:
    """The card of one split's store; `said`: what the checks say of its labels."""
    spec = manifest.spec
    files = {spec.transfer_set.split: "*.arrow"} if spec.layout == "arrow" else {}
    step = spec.encoding.measured_share(spec.label_space.classes)
    measured = "all stored distributions" if step == 1 else f"one of {step} stored distributions, evenly spread"
    return "\n\n".join(
        [
            _front_matter(manifest, files),
            f"{_title(spec)} ({escaped(spec.transfer_set.split)})",
            "\n".join([_what(manifest), *(f"- Checks: {line}" for line in said)]),
            "## Fidelity\n\nWhat storing lost, against the exact logits when they were written: KL(exact || stored) in\n"
            f"nats over {measured}, and how often the top class is the same.\n\n"
            + fidelity_table(manifest.fidelity),
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


def _front_matter(manifest: Manifest, files: dict[str, str]) -> str:
    """For the hub; paths are not shortened."""
    spec, data = manifest.spec, [{"split": split, "path": pattern} for split, pattern in files.items()]
    fields: dict[str, object] = {"pretty_name": one_line(f"{spec.teacher.name} on {spec.transfer_set.name}")}
    fields |= licence_fields(manifest) | ({"configs": [{"config_name": "default", "data_files": data}]} if data else {})
    return "\n".join([FRONT_MATTER, *yaml_lines(fields), "---"])


def licence_fields(manifest: Manifest) -> dict[str, object]:
    """What the front matter says of licences, if anything is known."""
    given = manifest.about.teacher_licence or manifest.about.transfer_licence
    return {"license": "other", "license_name": one_line(licences(manifest))} if given else {}


def licences(manifest: Manifest) -> str:
    """Those of teacher and data."""
    about = manifest.about
    return f"teacher: {about.teacher_licence or 'not stated'}; data: {about.transfer_licence or 'not stated'}"


def _what(manifest: Manifest, *, rows: bool = True) -> str:
    spec = manifest.spec
    names = ", ".join(map(escaped, spec.label_space.names[:20])) if spec.label_space.names else "no names"
    more = ", ..." if spec.label_space.names and len(spec.label_space.names) > 20 else ""
    members = "\n".join(
        f"  - {code(m.model)}, weight {m.weight:g}" + (f", weights digest `{m.weights[:16]}`" if m.weights else "")
        for m in spec.teacher.members
    )
    lines = [
        f"- Teacher: **{escaped(spec.teacher.name)}** in {escaped(spec.teacher.precision)}, {len(spec.teacher.members)} "
        f"member{'s' * (len(spec.teacher.members) > 1)}:\n{members}",
        f"- Transfer set: **{escaped(spec.transfer_set.name)}**"
        + (f", revision {code(spec.transfer_set.revision)}" if spec.transfer_set.revision else "")
        + (f", split {escaped(spec.transfer_set.split)}, {spec.rows:,} rows" if rows else ""),
        f"- Licences: {escaped(licences(manifest))}",
        f"- Label space: {spec.label_space.classes} classes ({names}{more})",
        f"- Inputs: {'embedded, as prepared' if spec.encoding.inputs == 'embed' else 'not here: rows are found by content key'}"
        f" (prepared by {code(spec.preprocessing.function)})",
    ]
    if spec.positions is not None:
        upto = "up to " if spec.ragged else ""
        lines.append(
            f"- Sequences: {upto}{spec.positions} positions a row, each a distribution of the next token; padding and the ends "
            f"of documents are masked; vocabulary `{str(spec.label_space.vocabulary)[:16]}`"
        )
    size = f"{manifest.bytes_per_position:.1f}".removesuffix(".0")
    what = spec.encoding.words(spec.label_space.classes, BASIS_FILE)
    encoding = f"- Encoding: {what}, reduce: {spec.encoding.reduce}, {size} bytes a position; layout {spec.layout}"
    return "\n".join([*lines, encoding])


def _loading(manifest: Manifest, path: str) -> str:
    """The section "How to load" for the store at `path`."""
    spec = manifest.spec
    shape = "(8, classes)" if spec.positions is None else "(8, positions, classes)"
    ours = (
        f"from softlabels import open_store\n\nstore = open_store({json.dumps(path)})\n"
        f"log_p = store.log_probs(range(8), temperature=4.0)  # {shape}, the ensemble's distribution"
    )
    classes, positions = spec.label_space.classes, spec.positions is not None
    plain = spec.encoding.code(spec.layout, json.dumps(path), classes, positions=positions)
    label = "With plain zarr" if spec.layout == "zarr" else "With `datasets`"
    return (
        f"{label}; {spec.encoding.how}:\n\n```python\n{plain}\n```\n\n"
        f"With `softlabels`, every chunk checked, members averaged:\n\n```python\n{ours}\n```"
    )
