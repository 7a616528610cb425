"""A class or function by its dotted path: how a recipe names a user's own model, factory or prepare function.

In YAML: `{class_path: my_package.nets.Net, init_args: {width: 64}}`. Only a recipe or a command line may name one; a store
never does. What is imported must be on Python's path. Neighbours: `transfer` (factories, prepare functions), `models`,
`student` (optimizers, schedules).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError, MissingExtra
from softlabels.names import OF_0_1, short


@dataclass(frozen=True)
class ObjectSpec:
    """The dotted path of a class or function, and the keyword arguments to call it with."""

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_path", canonical(self.class_path))


def canonical(path: str) -> str:
    """The one name of the object at `path`: the short one of what softlabels ships, by whatever name it is given; a name of
    version 0.1 means what it meant then, unless the user's own package `pipeline` has such an object.
    """
    if path in OF_0_1 and not _is_there(path):
        return OF_0_1[path]
    return short(path)


def _is_there(path: str) -> bool:
    """Whether the user's own package has the object that version 0.1 called so, or fails to say because it cannot be imported.
    Where it has no such module nothing of it is run: `pipeline.py` may be a script.
    """
    module, _, name = path.rpartition(".")
    try:
        return _has_file(module) and hasattr(importlib.import_module(module), name)
    except ImportError:
        return True


def _has_file(module: str) -> bool:
    """Whether the package that Python finds has the file of such a module; nothing is imported."""
    package, *below = module.split(".")
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # a module that no file was read for
        return module in sys.modules
    places = [Path(place, *below) for place in (found and found.submodule_search_locations) or ()]
    return any(place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() for place in places)


def import_object(path: str) -> Any:
    """The object that `package.module.Name` (or `package.module.Outer.Name`) names.

    Raises:
        ConfigError: no dotted path, no such module, the module fails to import, or it has no such name.
    """
    path = canonical(path)
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path!r} is no dotted path", remedy="write it as package.module.Name")
    module, names = _longest_module(path, parts)
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            where = getattr(found, "__name__", path)
            raise ConfigError(f"{path} not found: {where} has no {name!r}", remedy="check the spelling of class_path")
        found = getattr(found, name)
    return found


def _longest_module(path: str, parts: list[str]) -> tuple[Any, list[str]]:
    """The longest importable module in front of the last name, and the names that are left."""
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        try:
            return importlib.import_module(module), parts[end:]
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                continue  # this part of the path is no module: perhaps a class
            raise _failed_import(path, error) from error
        except ImportError as error:
            raise _failed_import(path, error) from error
    raise ConfigError(
        f"{path} not found: there is no module {parts[0]!r}",
        remedy="install it, or put the folder that holds it on PYTHONPATH",
    )


def _failed_import(path: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{path} cannot be imported: {error}", remedy="install what is missing, or correct the module")


def call_with(spec: ObjectSpec, *args: Any, **extra: Any) -> Callable[[], Any]:
    """`spec` imported and bound to its arguments, to be called later.

    Raises:
        ConfigError: `import_object`'s reasons; not callable; the arguments do not fit its signature.
    """
    target = import_object(spec.class_path)
    if not callable(target):
        raise ConfigError(f"{spec.class_path} is a {type(target).__name__}", remedy="name a class or a function")
    twice = sorted(spec.init_args.keys() & extra.keys())
    if twice:
        raise ConfigError(
            f"{spec.class_path} is given {', '.join(twice)} by the pipeline", remedy="drop it from init_args"
        )
    kwargs = {**spec.init_args, **extra}
    try:
        signature = inspect.signature(target)
    except ValueError:  # some built-in callables publish none
        return lambda: target(*args, **kwargs)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ConfigError(
            f"{spec.class_path}{signature} cannot be called so: {error}", remedy="correct init_args"
        ) from error
    return lambda: target(*args, **kwargs)


def build(spec: ObjectSpec, *args: Any, **extra: Any) -> Any:
    """Import `spec` and call it with `args`, its `init_args` and `extra`; what it raises itself passes through.

    Raises:
        ConfigError: as `call_with`.
    """
    return call_with(spec, *args, **extra)()


def require_extra(package: str, *, extra: str) -> Any:
    """The module `package`, which `pip install 'softlabels[extra]'` installs.

    Raises:
        MissingExtra: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise MissingExtra(
            f"this needs the package {package}, which is not installed", remedy=f"pip install 'softlabels[{extra}]'"
        ) from None
