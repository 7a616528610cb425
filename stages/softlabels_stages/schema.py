"""A dataclass seen as keys with dots: which keys it has, what a mapping gives for them, and the instance they make.

`typed` makes an instance from a plain mapping. Its steps stand alone, because a recipe and a command line give values
for the same keys (`softlabels_stages.recipe`): `keys` lists the leaves of a dataclass, `flatten` finds a mapping's values for
them (an unknown key is an error with the nearest known one), `check` brings each value to its type, a text as YAML reads it,
`require_none` raises all errors of these two as one, `build` makes the instance. Fields that are dataclasses, or
`dataclass | None`, nest; a list of dataclasses is one leaf whose items are mappings.

Two-level objects (`class_path`, `init_args`) follow one rule everywhere: another class starts with empty `init_args`,
for the arguments of the class before it would not fit.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, Union

import msgspec
import yaml

from softlabels.errors import ConfigError

T = TypeVar("T")
LONGEST = 200  # characters of a value in a message


@dataclass(frozen=True)
class Key:
    """One leaf: its dotted name, its type, its default (MISSING: must be given), the dataclasses that it stands in, the
    outermost first.
    """

    name: str
    hint: object
    default: object
    owners: tuple[type, ...]


def typed(cls: type[T], mapping: object, *, where: str) -> T:
    """An instance of the dataclass `cls` from a plain mapping, every key and type checked; errors call it `where`."""
    wrong: list[ConfigError] = []
    given = check(keys(cls), flatten(cls, mapping, where=where, wrong=wrong), where=where, wrong=wrong)
    require_none(wrong)
    return build(cls, given, where=where)


def keys(cls: type, prefix: str = "", base: object = None, owners: tuple[type, ...] = ()) -> dict[str, Key]:
    """The leaves of the dataclass `cls` by dotted name; `base` is an instance whose values are the defaults."""
    hints, found = typing.get_type_hints(cls), {}
    owners = (*owners, cls)
    for field in fields(cls):
        name, hint = prefix + field.name, hints[field.name]
        default = _default(field, base)
        inner = _nested(hint)
        if inner is None:
            found[name] = Key(name, hint, default, owners)
            continue
        below = keys(inner, f"{name}.", default if is_dataclass(default) else None, owners)
        if default is None:  # nothing has to be given of a section that may be left out
            below = {
                key: replace(leaf, default=None) if leaf.default is MISSING else leaf for key, leaf in below.items()
            }
        found |= below
    return found


def flatten(cls: type, mapping: object, *, where: str, wrong: list[ConfigError], prefix: str = "") -> dict[str, object]:
    """The values that `mapping` gives, by dotted name; `where` is what an error calls the mapping.

    Where it is no mapping, or has a key that `cls` lacks, the error goes to `wrong`, so that a user sees all of them at once.
    """
    known = [field.name for field in fields(cls)]
    if not isinstance(mapping, Mapping):
        remedy = f"known keys: {', '.join(known)}"
        wrong.append(ConfigError(f"{where} is {mapping!r}, expected a mapping of keys", remedy=remedy))
        return {}
    hints, given = typing.get_type_hints(cls), {}
    for name, value in mapping.items():
        if name not in known:
            wrong.append(unknown_key(f"{where}: unknown key {name!r} (value {value!r})", str(name), known))
            continue
        inner = _nested(hints[name])
        if inner is None or (value is None and type(None) in typing.get_args(hints[name])):
            given[prefix + name] = value
        else:
            below = flatten(inner, value, where=f"{where}.{name}", wrong=wrong, prefix=f"{prefix}{name}.")
            given |= below or {prefix + name: {}}  # an empty section is one: all of it stays as it is by default
    return given


def check(
    known: Mapping[str, Key], given: Mapping[str, object], *, where: str, wrong: list[ConfigError]
) -> dict[str, object]:
    """The given values in the types of their keys. Where one has another, an error that names both goes to `wrong`."""
    found = {}
    for name, value in given.items():
        try:  # a name that is no key is a section that is null or empty
            found[name] = _right(known[name], value, where) if name in known else value
        except ConfigError as error:
            wrong.append(error)
    return found


def require_none(wrong: Sequence[ConfigError]) -> None:
    """Raise what is wrong with the given values: one error as it is, several as one that numbers them."""
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        shown = "; ".join(f"({number}) {each.what} [{each.remedy}]" for number, each in enumerate(wrong, 1))
        raise ConfigError(f"{len(wrong)} settings are wrong: {shown}", remedy="correct each of them")


def _right(key: Key, value: object, where: str) -> object:
    hint = list[dict[str, Any]] if item_class(key.hint) else key.hint
    for reading in _readings(hint, value):
        with suppress(msgspec.ValidationError, ValueError, OverflowError, RecursionError):
            return msgspec.convert(reading, hint)
    said = (
        repr(value) if len(repr(value)) <= LONGEST else f"{repr(value)[:LONGEST]}... ({len(repr(value)):,} characters)"
    )
    remedy = "correct it there" if key.default in (MISSING, None) else f"the default is {shown(key.default)}"
    raise ConfigError(f"{where}: {key.name} is {said}, expected {type_name(key.hint)}", remedy=remedy)


def _readings(hint: object, value: object) -> Iterator[object]:
    """What a value may mean: a text first what it is in YAML, where that is no text and the type has others than text."""
    if isinstance(value, str) and hint is not str and value.strip():
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            reading = read_yaml(value)
            if not isinstance(reading, str):
                yield reading
    yield value


def read_yaml(text: str) -> Any:
    """Safe YAML; raises what YAML raises, and ValueError and RecursionError of numbers and nestings beyond Python's."""
    return yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number (YAML 1.2) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As in SafeLoader, but a key that stands twice is an error."""
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")


def build(cls: type[T], given: Mapping[str, object], *, where: str, prefix: str = "", base: object = None) -> T:
    """An instance of `cls` from typed values by dotted name; what is not given stays as in `base`, or at its default.

    Raises ConfigError when a field without a default is not given.
    """
    hints = typing.get_type_hints(cls)
    changes: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]  # T is a dataclass: typeshed has no public name for the bound
        name, hint = prefix + field.name, hints[field.name]
        inner, default = _nested(hint), _default(field, base)
        if inner is not None and (given.get(name) == {} or any(key.startswith(f"{name}.") for key in given)):
            start = default if is_dataclass(default) else None
            changes[field.name] = build(inner, given, where=where, prefix=f"{name}.", base=start)
        elif name in given:
            changes[field.name] = _items(hint, given[name], where=f"{where}: {name}")
        elif default is MISSING:
            raise ConfigError(f"{where}: {name} is missing", remedy=f"give it: {type_name(hint)}")
    if base is None:
        return cls(**changes)
    if "class_path" in changes and changes["class_path"] != getattr(base, "class_path", None):
        changes.setdefault("init_args", {})
    return typing.cast(T, replace(base, **changes))  # type: ignore[type-var]  # base is an instance of cls


def unknown_key(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for an unknown key: the nearest known one where one is near, else all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return ConfigError(what, remedy=f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")


def type_name(hint: object) -> str:
    """A type as a user reads it: `float`, `list of int`, `text or null`, `'zarr' or 'arrow'`."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in inside)
    if origin is typing.Literal:
        return " or ".join(repr(value) for value in inside)
    if origin in (list, tuple):
        return f"list of {type_name(inside[0])}s"
    if origin is dict or is_dataclass(hint):
        return "mapping"
    simple = {str: "text", type(None): "null", int: "whole number", float: "number", bool: "true or false"}
    return simple.get(hint, getattr(hint, "__name__", str(hint)))


def shown(value: object) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_mapping(hint: object) -> bool:
    """Whether a value of this type is a mapping whose entries may be given one by one."""
    return any(part is dict or typing.get_origin(part) is dict for part in (hint, *typing.get_args(hint)))


def is_list(hint: object) -> bool:
    """Whether a value of this type is a list: `1,2,4` on the command line then means [1, 2, 4]."""
    return any(typing.get_origin(part) in (list, tuple) for part in (hint, *typing.get_args(hint)))


def holds_texts(hint: object) -> bool:
    """Whether a value of this type is a list of texts, in which `0,1` means "0" and "1"."""
    return any(is_list(part) and typing.get_args(part)[0] is str for part in (hint, *typing.get_args(hint)))


def choices(hint: object) -> tuple[object, ...]:
    """The values that a type names one by one."""
    parts = (hint, *typing.get_args(hint))
    return tuple(
        value for part in parts if typing.get_origin(part) is typing.Literal for value in typing.get_args(part)
    )


def item_class(hint: object) -> type | None:
    """The dataclass whose instances a list of this type holds, if it is such a list."""
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) in (list, tuple) and is_dataclass(item := typing.get_args(part)[0]):
            return typing.cast(type, item)
    return None


def _items(hint: object, value: object, *, where: str) -> object:
    """A typed value as the dataclass keeps it: lists of mappings become tuples of instances."""
    cls = item_class(hint)
    if cls is None or value is None:
        return value
    return tuple(typed(cls, item, where=f"{where}[{n}]") for n, item in enumerate(typing.cast(list[object], value)))


def _nested(hint: object) -> type | None:
    parts = [part for part in (typing.get_args(hint) or (hint,)) if part is not type(None)]
    is_single = len(parts) == 1 and isinstance(parts[0], type) and is_dataclass(parts[0])
    return parts[0] if is_single and typing.get_origin(hint) in (None, Union, types.UnionType) else None


def _default(field: Field[object], base: object) -> object:
    if base is not None:
        return getattr(base, field.name)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def parents(name: str) -> Iterator[str]:
    """The dotted names above `name`, nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
