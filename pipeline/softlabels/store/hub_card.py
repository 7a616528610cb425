"""The page of a repository on the Hub: front matter from which viewer and `datasets` know each split's files, columns and class
names; what people wrote; and a section of ours between two marks, which each push writes anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import yaml

from softlabels.errors import StorageError
from softlabels.store.card import as_dataset
from softlabels.store.features import features
from softlabels.store.preview import preview_features, what_it_holds
from softlabels.store.records import Manifest
from softlabels.store.spec import Spec
from softlabels.system.hub import PREVIEW
from softlabels.system.plain_yaml import plain_yaml

_FRONT = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*$\r?\n?", re.DOTALL | re.MULTILINE)
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """As the Hub reads it, by YAML 1.2: `no` is a language, and 12:30 and 010 are texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, rule) for tag, rule in known if tag.removeprefix(_TAG) not in ("bool", "int", "float")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _rule, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*|(?=[eE])))([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_rule})\Z"), [*_first])


def page(
    standing: str, card: str, manifests: Mapping[str, Manifest], *, repository: str, folder: str, single: bool
) -> str:
    """The page after a push.

    Args:
        standing: what it says now. card: the store's own card. manifests: by split.
        repository: TEAM/NAME. folder: in it, where the store lies. single: it lies there itself, and not in folders of splits.

    Raises:
        StorageError: front matter stands there that cannot be read.
    """
    config = folder.replace("/", "--") or "default"
    fields, written = _parts(standing, f"the page of {repository}")
    ours, body = _parts(card, "the store's card")
    described = _described(manifests, config, folder, single)
    front = {name: value for name, value in ours.items() if name not in described} | fields
    tags = _listed(fields.get("tags"))
    front["tags"] = tags + [each for each in _listed(ours.get("tags")) if each not in tags]
    for name, entries in described.items():
        known = [each for each in _listed(fields.get(name)) if isinstance(each, dict)]
        front[name] = [*{str(each.get("config_name", "default")): each for each in known + entries}.values()]
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=False, width=10_000)
    section = _section(body, next(iter(manifests.values())).spec, config, repository, folder)
    return f"---\n{text}---\n\n{_joined(written, section, config)}"


def require_front_matter(standing: str, repository: str) -> None:
    """Raise `StorageError` for a page with front matter that cannot be read."""
    _parts(standing, f"the page of {repository}")


def preview_path(folder: str, split: str) -> str:
    """Where the preview of a split lies in its repository."""
    return "/".join(filter(None, (PREVIEW, folder, f"{split}.parquet")))


def _described(manifests: Mapping[str, Manifest], config: str, folder: str, single: bool) -> dict[str, list[Any]]:
    """The files of each split. `datasets` reads those of all configurations in one format, so that of a repository of several
    stores all are previews.
    """
    spec = next(iter(manifests.values())).spec
    if _loads_whole(spec, folder):
        files = {split: "*.arrow" if single else f"{split}/*.arrow" for split in manifests}
        return as_dataset(config, files, features(spec))
    return as_dataset(config, {split: preview_path(folder, split) for split in manifests}, preview_features(spec))


def _loads_whole(spec: Spec, folder: str) -> bool:
    """Whether `load_dataset` gives the labels themselves."""
    return spec.layout == "arrow" and not folder


def _section(body: str, spec: Spec, config: str, repository: str, folder: str) -> str:
    """What is ours of the page."""
    chosen = "" if config == "default" else f', "{config}"'
    loads = "the labels as they are stored" if _loads_whole(spec, folder) else "the preview"
    address = "/".join(filter(None, ("hf://datasets", repository, folder)))
    how = (
        f"{what_it_holds(spec)}\n\n```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("{repository}"{chosen})  # {loads}\n```\n\n'
        f"All of it, verified, for students at any temperature:\n\n```sh\nsoftlabels pull {address} STORE\n```"
    )
    if folder:
        return f"## [{folder}]({quote(folder)}/README.md)\n\n{how}"
    return f"{body.strip()}\n\n## From the Hub\n\n{how}"


def _joined(written: str, section: str, config: str) -> str:
    """What stands on the page, with this section in the place of the one before, or behind everything."""
    begin, end = f"<!-- softlabels {config}: a push writes what follows anew -->", f"<!-- softlabels {config} ends -->"
    marked = f"{begin}\n\n{section}\n\n{end}"
    head, found, rest = written.partition(begin)
    text = f"{head}{marked}{rest.rpartition(end)[2]}" if found else f"{written.rstrip()}\n\n{marked}"
    return text.strip() + "\n"


def _parts(text: str, what: str) -> tuple[dict[str, Any], str]:
    """Front matter and the rest."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        fields = plain_yaml(found[1], _Loader) or {}
        if not isinstance(fields, dict):
            raise ValueError
    except ValueError:
        raise StorageError(f"the front matter of {what} cannot be read", remedy="correct or remove it") from None
    return fields, text[found.end() :]


def _listed(value: object) -> list[Any]:
    """One value or several, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]
