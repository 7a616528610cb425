"""The folder of a student run: which run it belongs to, its recipe, its results.

`run.json` is written first and says what run this is (settings and store digests); a folder that holds anything else is
refused. What a single student keeps in its own folder below is the trainer's business.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from blake3 import blake3

from softlabels.errors import RunExists, SoftLabelsError
from softlabels.jobs.run_files import RECIPE, RESULTS, RUN, read_object, read_results
from softlabels.names import renamed
from softlabels.report.comparison import comparison_markdown
from softlabels.store.differences import Difference, differences
from softlabels.student.config import deciding
from softlabels.student.runlog import finite
from softlabels.system.files import is_file
from softlabels.system.local import LocalFolder

PAGE = "results.md"


class RunFolder:
    """An opened run folder; made by `RunFolder.open`.

    Attributes:
        path, folder: where it lies.
        results: what `results.json` holds; None while the run is unfinished.
    """

    def __init__(self, folder: LocalFolder) -> None:
        self.folder, self.path = folder, folder.at()
        self.results: dict[str, Any] | None = read_results(folder) if folder.exists(RESULTS) else None

    @staticmethod
    def place(out: str | Path | None, *, name: str, identity: Mapping[str, Any]) -> Path:
        """Where `open` begins or finds the run; nothing is touched."""
        if out:
            return Path(out)
        ours = Path(f"runs/{name}-{blake3(_text(identity).encode()).hexdigest(length=4)}")
        begun = [] if ours.exists() else sorted(ours.parent.glob(f"{glob.escape(name)}-*/{RUN}"))
        return next((run.parent for run in begun if _is_same(LocalFolder(run.parent), identity)), ours)

    @classmethod
    def open(
        cls,
        out: str | Path | LocalFolder | None,
        *,
        name: str,
        identity: Mapping[str, Any],
        order: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Begin a run in `out`, or go on with it.

        Args:
            out: default runs/NAME-xxxxxxxx, the end being a digest of the identity; the folder of an earlier version's run of
                the same identity where there is one.
            identity: JSON values that tell this run from others.
            order: what the order of its rows goes by (`Loader.order`), which is written beside them and tells no runs apart.

        Raises:
            RunExists: `out` holds another run, naming the fields that differ, or something else.
        """
        folder = out if isinstance(out, LocalFolder) else LocalFolder(cls.place(out, name=name, identity=identity))
        path = folder.at()
        remedy = "give another --out, or leave it out: other settings then go to a folder of their own"
        if is_file(folder):
            raise RunExists(f"{path} is a file, not a run folder", remedy=remedy)
        if folder.exists(RUN):
            different = _different(folder, identity)
            if different:
                said = "; ".join(leaf.said() for leaf in different)
                raise RunExists(f"{path} holds another run: {said}", remedy=remedy)
            return cls(folder)
        if any(not name.startswith(".") for name in folder.names()):
            raise RunExists(f"{path} holds other files than a run", remedy=remedy)
        folder.make()
        kept = {**identity, "order": dict(order)} if order else identity
        folder.put(RUN, f"{_text(kept)}\n".encode())
        return cls(folder)

    def keep_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Write config.yaml, the recipe that repeats the run, where it is not there yet."""
        if not self.folder.exists(RECIPE):
            self.folder.put(RECIPE, yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True).encode())

    def finish(self, results: Mapping[str, Any], *, store: str | list[str]) -> dict[str, Any]:
        """What results.json holds now: write results.md, then results.json, whose presence says that the run is finished."""
        self.results = {"store": store, **cast(dict[str, Any], finite(results))}
        self.folder.put(PAGE, comparison_markdown(self.results, title=self.path.name).encode())
        self.folder.put(RESULTS, json.dumps(self.results, indent=1, allow_nan=False).encode())
        return self.results


def _different(run: LocalFolder, identity: Mapping[str, Any]) -> list[Difference]:
    """In what the run of a folder differs from ours; names and settings of earlier versions are known."""
    ours = json.loads(_text(identity))
    standing = renamed(read_object(run, RUN, f"delete {run} to train anew, or give another --out"), ours)
    standing.pop("order", None)
    if isinstance(standing.get("training"), dict):  # of earlier versions, which counted every setting
        standing["training"] = deciding(standing["training"])
    return differences(standing, ours)


def _is_same(run: LocalFolder, identity: Mapping[str, Any]) -> bool:
    """Whether a folder's run.json tells of our run; one of another run may hold anything."""
    try:
        return not _different(run, identity)
    except (OSError, SoftLabelsError, ValueError, TypeError, AttributeError):
        return False


def _text(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, indent=1, sort_keys=True)
