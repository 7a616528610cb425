"""Describe a store in ten lines, or with --json in full for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from softlabels.errors import ConfigError, one_line, some
from softlabels.jobs.watch import counted
from softlabels.labels.fidelity import by_temperature, nats
from softlabels.store import open_store, store_splits
from softlabels.store.commit import recorded_shards
from softlabels.store.json_files import read_json
from softlabels.store.paths import MANIFEST, PLAN, SIGNATURES
from softlabels.store.records import Manifest
from softlabels.store.shared import Shared, shared
from softlabels.store.signatures import read_signatures
from softlabels.store.spec import Plan, Spec
from softlabels.system.files import Files
from softlabels_stages.arguments import Info
from softlabels_stages.run import stage


@stage("info")
def main(args: Info) -> int:
    """Describe every split asked for."""
    splits = store_splits(args.store)
    if args.split is not None:
        if args.split not in splits:
            raise ConfigError(f"{args.store} has no split {args.split!r}", remedy=f"choose one of {', '.join(splits)}")
        splits = {args.split: splits[args.split]}
    for folder in splits.values():
        folder.ahead({SIGNATURES: [(0, 1)]})
    described = {split: describe(path) for split, path in splits.items()}
    found = _shared(splits, described)
    if args.json:
        print(json.dumps(next(iter(described.values())) if len(described) == 1 else described, indent=1))
    else:
        print("\n\n".join(_text(str(splits[split]), facts) for split, facts in described.items()))
        for line in found.lines:
            print(f"\n{line}" if line == found.lines[0] else line)
    return 0


def _shared(folders: Mapping[str, Files], described: dict[str, dict[str, Any]]) -> Shared:
    """The rows that the sealed splits share or repeat, told apart by content key; each split's own go into its facts."""
    sealed = {split: folder for split, folder in folders.items() if described[split]["sealed"]}
    near = all(folder.near for folder in sealed.values())
    found = shared(sealed) if near else Shared(unknown="rows that splits share are not counted: the store is remote")
    for split, facts in described.items():
        of = {
            name.partition(" in ")[2]: rows for name, rows in found.found.items() if name.partition(" in ")[0] == split
        }
        facts |= {"repeated_rows": of.pop("", 0), "shared_rows": of}
    return found


def describe(path: Files) -> dict[str, Any]:
    """What `--json` prints of one store, sealed or not; sealed ones are opened and so checked against themselves."""
    sealed = path.exists(MANIFEST)
    manifest: Manifest | None = open_store(path).manifest if sealed else None
    spec = manifest.spec if manifest else read_json(path, PLAN, Plan).spec
    targets = {target.name: _target(spec.only(target.name), manifest, target.name) for target in spec.targets}
    return {
        "rows": spec.rows,
        **targets.get("", {"targets": targets}),
        "layout": spec.layout,
        "positions": spec.positions,
        "ragged": spec.ragged,
        "compression": spec.compression,
        "sealed": sealed,
        "shards": spec.shards,
        "shards_done": spec.shards if sealed and not path.near else len(recorded_shards(path)),
        "digest": manifest.digest if manifest else None,
        "content_digest": manifest.content_digest if manifest else None,
        "signed_by": [each.key for each in read_signatures(path)],  # or so it says
        "bytes": manifest.bytes if manifest else None,
        "bytes_per_position": manifest.bytes_per_position if manifest else None,
        "teacher": msgspec.to_builtins(spec.teacher),
        "folds": None if spec.folds is msgspec.UNSET else spec.folds,
        "transfer_set": msgspec.to_builtins(spec.transfer_set),
        "preprocessing": msgspec.to_builtins(spec.preprocessing),
        "parents": [] if spec.parents is msgspec.UNSET else msgspec.to_builtins(spec.parents),
    }


def _target(spec: Spec, manifest: Manifest | None, name: str) -> dict[str, Any]:
    """What is printed of each target."""
    space, lost = spec.label_space, None if manifest is None else manifest.lost[name]
    return {
        "classes": space.classes,
        "members": spec.stored_members,
        "encoding": msgspec.to_builtins(spec.encoding),
        "vocabulary": None if space.vocabulary is msgspec.UNSET else space.vocabulary,
        "fidelity": None if lost is None else msgspec.to_builtins(lost.fidelity),
        **({} if lost is None or lost.errors is None else {"errors": msgspec.to_builtins(lost.errors)}),
        "class_names": space.names,
    }


def _rows(facts: dict[str, Any]) -> str:
    salted = ", salted keys" if facts["transfer_set"].get("key_rule") == 3 else ""
    if facts["positions"] is None:
        return salted
    return f" of {'up to ' if facts['ragged'] else ''}{facts['positions']:,} positions{salted}"


def _folds(facts: dict[str, Any]) -> str:
    return f", out of {facts['folds']} folds" if facts["folds"] else ""


def _place(facts: dict[str, Any]) -> str:
    """What each distribution, or vector, is of."""
    return "row" if facts["positions"] is None else "position"


def _encoding(encoding: dict[str, Any]) -> str:
    kept = ""
    if encoding["kind"] == "topk":
        kept = f", k {encoding['k']}, tail {encoding['tail']}"
        kept += f" of rank {encoding['rank']}, {encoding['fine']} of 8 bits" if encoding["rank"] else ""
        kept += f", {encoding['nodes']} nodes, T >= {1 / encoding['beta_max']:g}" if encoding["nodes"] else ""
    kept += f", known at T={encoding['known_at']:g} alone" if "known_at" in encoding else ""
    return f"{encoding['kind']}{kept}, reduce {encoding['reduce']}, inputs {encoding['inputs']}"


def _text(path: str, facts: dict[str, Any]) -> str:
    teacher, transfer_set = facts["teacher"], facts["transfer_set"]
    rows, members = counted(facts["rows"], "row"), counted(len(teacher["members"]), "member")
    state = "sealed" if facts["sealed"] else f"UNFINISHED, {facts['shards_done']} of {facts['shards']} shards"
    lines = [
        ("store", f"{path} ({state})"),
        ("teacher", f"{teacher['name']}, {members}, {teacher['precision'] or 'precision not stated'}{_folds(facts)}"),
        ("transfer set", f"{transfer_set['name']}, split {transfer_set['split']}, {rows}{_rows(facts)}"),
        *([("made of", some(f"{each['how']} {each['digest'][:16]}" for each in facts["parents"]))] if facts["parents"] else []),
        *_kept(facts),
        ("layout", f"{facts['layout']}, compression {facts['compression']}, {counted(facts['shards'], 'shard')}"),
    ]  # fmt: skip
    if facts["sealed"]:
        lines += [
            (
                "size",
                f"{facts['bytes']:,} bytes; labels {facts['bytes_per_position']:.1f} bytes a {_place(facts)}",
            ),
            *([("fidelity", _lost(facts))] if "encoding" in facts else []),
            ("digest", facts["digest"]),
            ("content", facts["content_digest"]),
            *(
                [("signed", f"{some(facts['signed_by'])} (not checked: verify --signed_by)")]
                if facts["signed_by"]
                else []
            ),
        ]
    return "\n".join(f"{name:<13} {one_line(text, None)}" for name, text in lines)


def _kept(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines that say what is stored, of several targets one of each."""
    if "targets" in facts:
        of_each = {name: (*_kept(one), ("", _lost(one))) for name, one in facts["targets"].items()}
        return [
            ("target", f"{name}: {'; '.join(filter(None, (text for _, text in each)))}")
            for name, each in of_each.items()
        ]
    names, number = facts["class_names"], "values" if facts["encoding"]["kind"] == "values" else "classes"
    more = f": {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
    return [(number, f"{facts['classes']}{more}"), ("encoding", _encoding(facts["encoding"]))]


def _lost(facts: dict[str, Any]) -> str:
    """What storing a target lost."""
    if errors := facts.get("errors"):
        return f"error {errors['rmse']:.1e}, at most {errors['largest']:.1e}"
    if facts["fidelity"] is None:  # of an unfinished store
        return ""
    fidelity = by_temperature(facts["fidelity"])
    return "mean KL " + ", ".join(f"{nats(f['kl_mean'], 1)} at T={t}" for t, f in fidelity) if fidelity else "unknown"


if __name__ == "__main__":
    sys.exit(main())
