"""A class or function by its dotted path: how a recipe names a user's own model, factory or prepare function.

In YAML: `{class_path: my_package.nets.Net, init_args: {width: 64}}`. Only a recipe or a command line may name one; a store
never does. What is imported must be on Python's path, or, while a command runs, in its working folder or beside its recipe.

This is the one door through which a name becomes code, so `only_shipped` closes it for a recipe that comes from somebody else.
Neighbours: `transfer` (factories, prepare functions), `models`, `student` (optimizers, schedules).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from softlabels.errors import ConfigError, MissingExtra, UntrustedCode
from softlabels.names import OF_0_1, OF_TORCH, SHIPPED, short


@dataclass(frozen=True)
class ObjectSpec:
    """The dotted path of a class or function, and the keyword arguments to call it with.

    Example:
        >>> scaled = ObjectSpec("softlabels.transfer.scale", {"divisor": 16})
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)  # its keyword arguments

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_path", canonical(self.class_path))


@dataclass
class _Door:
    """How names become code while one command runs; a global, so that every thread sees it.

    Attributes:
        refusal: why only what ships is imported, and the remedy; None where everything is.
        folders: where modules are looked for last, in this order.
    """

    refusal: tuple[str, str] | None = None
    folders: list[str] = field(default_factory=list)


_door = _Door()


@contextmanager
def one_command() -> Iterator[None]:
    """While a command runs, class paths may name modules in the working folder, looked for last, and only where one is named:
    a module that stands there in the name of an installed one is not imported. `only_shipped` holds until the command's end.
    """
    global _door
    before, path, _door = _door, list(sys.path), _Door()
    with suppress(OSError):  # the folder was removed
        look_in(Path.cwd())
    try:
        yield
    finally:
        for folder in _door.folders:
            if folder in sys.path and folder not in path:
                sys.path.remove(folder)
        _door = before


def look_in(folder: Path) -> None:
    """Until the command's end look for modules in this folder too, after all others."""
    _door.folders.append(str(folder))


def only_shipped(why: str, *, remedy: str) -> None:
    """Until the command's end refuse every class path that `softlabels.names` does not list, as ours or as torch's: the path,
    `why`, and `remedy`.
    """
    _door.refusal = why, remedy


def is_guarded() -> bool:
    """Whether `only_shipped` holds."""
    return _door.refusal is not None


def canonical(path: str) -> str:
    """The one name of the object at `path`: the short one of what softlabels ships, by whatever name it is given; a name of
    version 0.1 means what it meant then, unless the user's own package `pipeline` has such an object.
    """
    if path in OF_0_1 and (is_guarded() or not _is_there(path)):
        return OF_0_1[path]
    return short(path)


def _is_there(path: str) -> bool:
    """Whether the user's own package has the object that version 0.1 called so, or fails to say because it cannot be imported.
    Where it has no such module nothing of it is run: `pipeline.py` may be a script.
    """
    _open_folder(path)
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
        UntrustedCode: `only_shipped` holds, and softlabels does not ship it; nothing was imported.

    Example:
        >>> from softlabels.objects import import_object
        >>> import_object("softlabels.transfer.scale")([np.array([8.0])], divisor=16).tolist()
        [[0.5]]
    """
    path = canonical(path)
    parts = SHIPPED.get(path, path).split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path!r} is no dotted path", remedy="write it as package.module.Name")
    if _door.refusal is not None and path not in SHIPPED and path not in OF_TORCH:
        why, remedy = _door.refusal
        raise UntrustedCode(f"{path} {why}", remedy=remedy)
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
    _open_folder(path)
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


def _open_folder(path: str) -> None:
    """Put the command's folders on Python's path where nothing that is installed has the module's name."""
    if not _is_installed(path.partition(".")[0]):
        # they stay: the module may import its neighbours later
        sys.path.extend(folder for folder in _door.folders if folder not in sys.path)


def _is_installed(module: str) -> bool:
    """Whether Python's path has the top-level module; a folder of that name without an `__init__.py` does not count."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # it is there, and was not found by an import: `__main__`
        return True
    return spec is not None and spec.origin is not None


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
            f"{spec.class_path} gets {', '.join(twice)} from the pipeline", remedy="drop it from init_args"
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
            f"{spec.class_path}{signature} cannot be called with these arguments: {error}", remedy="correct init_args"
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
            f"this needs the package {package}, which is not installed",
            remedy=f"{sys.executable} -m pip install 'softlabels[{extra}]'",
        ) from None


def plain(value: object) -> Any:
    """A configuration as JSON and YAML write it: dataclasses as mappings, tuples as lists."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
