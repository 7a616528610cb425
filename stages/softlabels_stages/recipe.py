"""A command's arguments: one dataclass, filled from a recipe's sections and from `--key=value` flags.

A stage declares what it needs as a frozen dataclass and calls `parse`::

    @dataclass(frozen=True)
    class TrainStudent:
        student: ModelConfig                     # a section of the recipe, with --student.class_path=... flags
        training: StudentStage                   # in flat=("training",): its fields are flags, --alpha=0.9
        teacher: dict[str, Any] | None = None    # a section taken as it stands: nothing is imported for it
        labels: LabelsConfig | None = None       # a section that a recipe may leave out
        store: str = OWN_STORE                   # an option; this comment is what --help says of it

    arguments = parse(argv, TrainStudent, stage="train-student", doc=__doc__, flat=("training",))

A field whose name is in SECTIONS is read from the recipe (one YAML file, `--config FILE`) and then from flags, and so are those
in OF_STORES of a command that reads stores; any other field is a flag only. A command without a section has no `--config`.
Without `--config` nothing of any recipe is taken: a setting is as its flag says, or at its default in `--help`. OWN_STORE
is stores/ and the recipe's name. Bool flags may stand alone (`--json`); lists may be written `1,2,4`; one entry of a mapping is
set by its own key (`--student.init_args.hidden=[32]`). Everything that is wrong is one ConfigError in one line.

YAML is loaded safely, a key that stands twice is refused. What a dataclass says about its fields is the help: lines
`name: text` in its docstring, or comments beside the fields.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from softlabels.errors import ConfigError
from softlabels.jobs.run_files import RECIPE, RESULTS, RUN
from softlabels.objects import canonical, plain
from softlabels.system.local import LocalFolder
from softlabels_stages import beside, schema
from softlabels_stages.help import help_text
from softlabels_stages.schema import Key
from softlabels_stages.trust import guard, is_of_run

T = TypeVar("T")
SECTIONS = (
    "name",
    "transfer_set",
    "tokenizer",
    "teacher",
    "teacher_training",
    "labels",
    "student",
    "training",
    "tracker",
    "pinned",
)
OF_STORES = ("store", "repeated", "rename")  # what a recipe may say of the stores that students learn from
EXAMPLE = "digits"
OWN_STORE = "stores/NAME"
_DEEPEST, _LARGEST = 100, 1_000_000  # of a recipe


def parse(
    argv: Sequence[str] | None,
    cls: type[T],
    *,
    stage: str,
    doc: str | None,
    flat: Sequence[str] = (),
    positional: Sequence[str] = (),
    run: Path | None = None,
) -> T:
    """An instance of `cls` from a command line (default: this process's) and the recipe that it names.

    flat: sections whose fields are top-level flags. positional: options that may be given without their flag, in this
    order. run: a run folder whose recipe is taken where none is named. `--help` prints `doc` and every key, and ends the
    process. Without `--trust`, code that the recipe of a run names is refused from here on where the run was not made here
    (`softlabels_stages.trust`). Raises ConfigError.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = _known(cls)
    beside.forget()
    if asks_help(words):
        print_help(cls, stage=stage, doc=doc, flat=flat, positional=positional)
        raise SystemExit(0)
    flags = dict(_flags(words, known, flat, positional))
    given: dict[str, object] = {}
    wrong: list[ConfigError] = []
    where, recipe = flags.pop("config", None if run is None else str(run / RECIPE)), None
    if "config" in known:
        trust = schema.typed(_Config, {"trust": flags.pop("trust", False)}, where="command line").trust
    if where is not None:
        source, data = _read(where)
        if source is not None and not trust:
            guard(source, data, run=run)
        recipe = sections_of(data, where)
        if source is not None and not is_of_run(source, run):
            beside.use(source, recipe)
        own = _own_of(recipe, known)
        given = schema.check(known, schema.flatten(cls, own, where=where, wrong=wrong), where=where, wrong=wrong)
    given |= schema.check(known, _merge(given, flags, known), where="command line", wrong=wrong)
    schema.require_none(wrong)
    for name in (given.get("name"), (recipe or {}).get("name")):
        _require_name(name, where or stage)
    asked = [name for name in positional if name != "config"]
    if recipe is None and all(given.get(name) or known[name].default for name in asked):  # else the stage says so
        _require(cls, known, given, stage=stage)
    elif recipe is not None and _needs_store(known, given):
        place = OWN_STORE.replace("NAME", str(recipe.get("name") or Path(str(where)).stem))
        given["store"] = place if known["store"].default == OWN_STORE else (place,)
    return schema.build(cls, given, where=where or stage)


def _own_of(recipe: Mapping[str, Any], known: Mapping[str, Key]) -> dict[str, Any]:
    """What a recipe says for a command with these keys; which stores, of commands that read some."""
    reads = "store" in known and known["store"].default == (OWN_STORE,)
    names = dict.fromkeys(key.partition(".")[0] for key in known)
    own = {name: recipe[name] for name in names if name in recipe and (reads or name not in OF_STORES)}
    return own | ({"store": [own["store"]]} if isinstance(own.get("store"), str) else {})


def recipe_of(arguments: object) -> dict[str, Any]:
    """The sections of a recipe as a command's arguments have them, but for those that are None; and its stores, of several."""
    several = OF_STORES if len(getattr(arguments, "store", ())) > 1 else ()
    sections = {name: getattr(arguments, name, None) for name in (*SECTIONS, *several)}
    return {name: plain(value) for name, value in sections.items() if value is not None}


def print_help(
    cls: type, *, stage: str, doc: str | None, flat: Sequence[str] = (), positional: Sequence[str] = ()
) -> None:
    """Print what `--help` prints: `doc` and every key. Arguments as of `parse`."""
    names = {_flag(name, flat): key for name, key in _known(cls).items()}
    print(help_text(names, stage=stage, doc=doc or "", sections=SECTIONS, positional=positional), flush=True)


def texts(argv: Sequence[str] | None, cls: type, *, positional: Sequence[str] = ()) -> dict[str, str]:
    """What a command line gives for each key, as it is written there, and nothing where it asks for help; no recipe is read.
    Arguments and errors as of `parse`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return {} if asks_help(words) else dict(_flags(words, _known(cls), (), positional))


def asks_help(words: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return "-h" in words or "--help" in words


def _require_name(name: object, where: str) -> None:
    """Raise ConfigError where a recipe's name, which names folders below stores/ and runs/, would name one elsewhere."""
    if name is not None and any(part in ("", ".", "..") or "\0" in part for part in str(name).split("/")):
        raise ConfigError(
            f"{where}: name is {name!r}, and stores/NAME and runs/NAME-xxxxxxxx would be elsewhere",
            remedy="give a name without '/' and '..', and say where files go with --store and --out",
        )


def _require(cls: type, known: Mapping[str, Key], given: Mapping[str, object], *, stage: str) -> None:
    """Raise ConfigError where, without a recipe, a section or key that has no default is not given, or no store is named."""
    lacking = [name for name, key in known.items() if key.default is MISSING and name not in given]
    there = {name.partition(".")[0] for name in (*given, *lacking)}
    bare = [field.name for field in fields(cls) if field.default is field.default_factory is MISSING]
    sections = dict.fromkeys(
        [*(name.partition(".")[0] for name in lacking), *(name for name in bare if name not in there)]
    )
    if not sections and not _needs_store(known, given):
        return
    what = (
        f"{' and '.join(sections)} {'is' if len(sections) == 1 else 'are'} missing" if sections else "no store is named"
    )
    flags = f"--{[*lacking, *(f'{name}.KEY' for name in sections)][0]}=..." if sections else "--store=STORE"
    raise ConfigError(
        f"{stage}: {what}, and no recipe is given",
        remedy=f"give --config=RECIPE, as --config={EXAMPLE} for the built-in example, or {flags}",
    )


def _needs_store(known: Mapping[str, Key], given: Mapping[str, object]) -> bool:
    """Whether the store is to be the recipe's own."""
    default = known["store"].default if "store" in known else None
    return default in (OWN_STORE, (OWN_STORE,)) and given.get("store", default) == default


def _known(cls: type) -> dict[str, Key]:
    """The keys of a dataclass, and `config` and `trust` where one of its sections may stand in a recipe."""
    recipe = {"config": Key("config", str, "", (_Config,)), "trust": Key("trust", bool, False, (_Config,))}
    return schema.keys(cls) | (recipe if any(field.name in SECTIONS for field in fields(cls)) else {})


def load(config: str) -> dict[str, Any]:
    """The recipe at a path, or the built-in one of that name, as plain values. Raises ConfigError."""
    return sections_of(_read(config)[1], config)


def _read(config: str) -> tuple[Path | None, bytes]:
    """Where the user's recipe lies, None for a built-in one, whose name no file in the working folder takes; and its bytes."""
    if config in built_in():
        return None, resources.files("softlabels_stages.configs").joinpath(f"{config}.yaml").read_bytes()
    is_stream = config == "/dev/stdin" or config.startswith("/dev/fd/")  # on purpose, as of a shell's <(...)
    if Path(config).exists() and not (Path(config).is_file() or Path(config).is_dir() or is_stream):
        raise ConfigError(f"{config} is a pipe or a device", remedy="give a YAML file or /dev/stdin")
    try:
        found, run = Path(config), LocalFolder(Path(config).parent)
        if found.name and any(map(run.exists, (RUN, RESULTS))):
            return found, run.read(found.name)  # through no link: a run may be somebody else's
        return found, found.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):  # the last: no path at all
        remedy = f"give a YAML file or a built-in recipe: {', '.join(built_in())}"
        raise ConfigError(f"there is no recipe {config}", remedy=remedy) from None


def sections_of(data: bytes, config: str) -> dict[str, Any]:
    """A recipe's bytes as plain values; errors call it `config`."""
    try:
        recipe = schema.read_yaml(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{config} is not a YAML file: {error}", remedy="correct the file at that place") from None
    _require_size(recipe, config)
    if not isinstance(recipe, dict):
        raise ConfigError(
            f"{config} holds {type(recipe).__name__}, expected sections", remedy=f"known: {', '.join(SECTIONS)}"
        )
    known = (*SECTIONS, *OF_STORES)
    schema.require_none(
        [
            schema.unknown_key(f"{config}: unknown section {name!r} (value {value!r})", str(name), known)
            for name, value in recipe.items()
            if name not in known
        ]
    )
    return recipe


def _require_size(recipe: object, config: str) -> None:
    """Raise ConfigError for what a few lines with anchors can make: values without end, or more than a computer can hold."""
    left, values = [(recipe, 0)], 0
    while left:
        value, depth = left.pop()
        values += 1
        if depth > _DEEPEST or values > _LARGEST:
            raise ConfigError(
                f"{config} holds more than {_DEEPEST} levels or {_LARGEST:,} values",
                remedy="look for anchors (&, *) in it",
            )
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(item, depth + 1) for item in inner]


@dataclass(frozen=True)
class _Config:
    config: str = ""  # the recipe: a YAML file, or the name of a built-in one, such as digits; none by default
    trust: bool = False  # run code that the config.yaml of a run names, though it was not made here: read it first


def built_in() -> list[str]:
    """Names of the recipes that come with the software."""
    files = (Path(entry.name) for entry in resources.files("softlabels_stages.configs").iterdir())
    return sorted(file.stem for file in files if file.suffix == ".yaml")


def _flags(
    words: Sequence[str], known: Mapping[str, Key], flat: Sequence[str], positional: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """The (name, text) pairs of a command line: `--key=text`, `--key text`, `--switch`, and words without a flag."""
    places, rest, listed = list(positional), list(words), []
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            if "config" in known and places[:1] != ["config"] and _is_recipe(word, bool(places)):
                raise ConfigError(f"the recipe {word} is given without a flag", remedy=f"write --config={word}")
            if not places:
                raise ConfigError(f"unexpected argument {word!r}", remedy="options are written --key=value; see --help")
            if schema.is_list(known[places[0]].hint):  # which takes all words that are left
                listed.append(word)
            else:
                yield places.pop(0), word
            continue
        flag, equals, text = word[2:].partition("=")
        name, key = _resolve(flag, known, flat)
        if not equals and key.hint is bool:
            text = "true"
        elif not equals:
            if not rest:
                raise ConfigError(f"--{flag} has no value", remedy=f"write --{flag}=<{schema.type_name(key.hint)}>")
            text = rest.pop(0)
        yield name, text
    if listed:
        yield places[0], _quoted(listed)


def _is_recipe(word: str, may_be_other: bool) -> bool:
    """Whether a word without a flag means a recipe. Where it may be another thing, as a store, only a YAML file does."""
    if not may_be_other and word in built_in():
        return True
    return word.endswith((".yaml", ".yml")) and Path(word).is_file()


def _resolve(flag: str, known: Mapping[str, Key], flat: Sequence[str]) -> tuple[str, Key]:
    """The full name that a flag means and its key, which is the mapping above it for an entry of a mapping."""
    written = flag.replace("-", "_")  # --against-teacher means --against_teacher
    for name in (flag, written, f"{written}_", *(f"{section}.{written}" for section in flat)):
        if name in known:
            return name, known[name]
        for above in schema.parents(name):
            if above in known and schema.is_mapping(known[above].hint):
                return name, known[above]
    flags, asked = [f"--{_flag(name, flat)}" for name in known], f"--{_flag(written, flat)}"
    below = [each for each in flags if each.startswith(f"{asked}.")]  # of a section, its keys
    raise schema.unknown_key(f"unknown option --{flag}", asked, below or flags)


def _flag(name: str, flat: Sequence[str]) -> str:
    section, _, rest = name.partition(".")
    return (rest if section in flat else name).removesuffix("_")  # `from_` is --from: a field cannot have that name


def _merge(given: Mapping[str, object], flags: Mapping[str, str], known: Mapping[str, Key]) -> dict[str, object]:
    """The values that the flags give: lists from `1,2,4`, entries put into the mappings that they belong to."""
    found: dict[str, object] = {}
    for name, text in flags.items():
        arguments = name.removesuffix("class_path") + "init_args"
        if name.endswith("class_path") and arguments in known and _is_other(text, given.get(name, known[name].default)):
            found[arguments] = {}  # another class: see softlabels_stages.schema
    for name, text in flags.items():
        if name in known:
            found[name] = _list(text, known[name].hint) if schema.is_list(known[name].hint) else text
            continue
        parent = next(up for up in schema.parents(name) if up in known)
        default = None if known[parent].default is MISSING else known[parent].default
        standing = found.get(parent, given.get(parent, default))
        mapping = dict(standing) if isinstance(standing, Mapping) else {}  # a text in its place is replaced
        found[parent] = _with_entry(mapping, name.removeprefix(f"{parent}.").split("."), text)
    return found


def store_flag(stores: Sequence[str]) -> str:
    """The flag that names these stores, as `_list` reads it."""
    plainly = all(each == each.strip() and "," not in each and not each.startswith("[") for each in stores)
    return f"--store={','.join(stores) if plainly else _quoted(stores)}"


def _is_other(path: str, given: object) -> bool:
    """Whether a class path names another object than the one that is given; an object may have several names."""
    return not isinstance(given, str) or canonical(path) != canonical(given)


def _list(text: str, hint: object) -> str:
    """A list as YAML, whether it was written so or as `1,2,4`."""
    if text.lstrip().startswith("[") or text.strip() == "null" or text in schema.choices(hint):
        return text
    items = [item.strip() for item in text.split(",")]
    return _quoted(items) if schema.holds_texts(hint) else f"[{text}]"


def _quoted(texts: Sequence[str]) -> str:
    """A list as YAML of ASCII, so that names that are no text (bytes of paths) and what YAML takes for unprintable pass."""
    return re.sub(r"[^\x20-\x7e]", lambda one: f"\\U{ord(one[0]):08x}", json.dumps([*texts], ensure_ascii=False))


def _with_entry(mapping: Mapping[str, object], path: Sequence[str], text: str) -> dict[str, object]:
    first, *rest = path
    if not rest:
        try:
            return {**mapping, first: schema.read_yaml(text)}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            what = f"command line: {first} is {text!r}, which is no YAML: {error}"
            raise ConfigError(what, remedy="quote it") from None
    inner = mapping.get(first)
    return {**mapping, first: _with_entry(inner if isinstance(inner, Mapping) else {}, rest, text)}
