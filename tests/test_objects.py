from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from softlabels.errors import ConfigError, MissingExtra, UntrustedCode
from softlabels.names import OF_0_1, OF_TORCH, SHIPPED
from softlabels.objects import (
    ObjectSpec,
    build,
    canonical,
    import_object,
    is_guarded,
    one_command,
    only_shipped,
    require_extra,
)
from softlabels.recipes.biased import Biased

MODULE = """
class Outer:
    class Inner:
        def __init__(self, width, *, depth=1):
            self.size = width, depth

def fails(value):
    raise TypeError("its own mistake")

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a package with a module `parts` and one that imports what nobody has."""
    name = f"objects_{tmp_path.name}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(MODULE)
    (package / "broken.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_nested_class_is_found_and_built(module: str) -> None:
    spec = ObjectSpec(f"{module}.parts.Outer.Inner", {"depth": 5})
    assert build(spec, 7).size == (7, 5)
    assert build(ObjectSpec(spec.class_path), width=2).size == (2, 1)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("Net", "no dotted path"),
        ("a..b", "no dotted path"),
        ("no_such_package.Net", "no module 'no_such_package'"),
        ("{module}.parts.Missing", "has no 'Missing'"),
        ("{module}.missing.Net", "has no 'missing'"),
        ("{module}.broken.Net", "No module named 'a_module_that_nobody_has'"),
    ],
)
def test_what_cannot_be_found_is_named(module: str, path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        import_object(path.format(module=module))


@pytest.mark.parametrize(
    ("name", "init_args", "words"),
    [
        ("Outer.Inner", {}, "width"),
        ("Outer.Inner", {"width": 1, "heigth": 2}, "heigth"),
        ("NUMBER", {}, "is a int"),
        ("fails", {"value": 1, "split": "x"}, "gets split from the pipeline"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    module: str, name: str, init_args: dict[str, object], words: str
) -> None:
    extra = {"split": "train"} if name == "fails" else {}
    with pytest.raises(ConfigError, match=words):
        build(ObjectSpec(f"{module}.parts.{name}", init_args), **extra)


def test_an_error_of_the_object_itself_passes_through(module: str) -> None:
    with pytest.raises(TypeError, match="its own mistake"):
        build(ObjectSpec(f"{module}.parts.fails"), 1)


def test_a_missing_extra_names_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'softlabels\[hf\]'"):
        require_extra("no_such_package_here", extra="hf")
    assert require_extra("json", extra="hf") is json


def test_only_what_ships_is_imported_until_the_command_ends(module: str) -> None:
    own = f"{module}.parts.Outer"
    with one_command():
        with one_command():
            only_shipped("is somebody else's", remedy="read it")
            assert is_guarded()
            with (
                ThreadPoolExecutor(1) as pool,
                pytest.raises(UntrustedCode, match=f"^{own} is somebody else's; read it$"),
            ):
                pool.submit(import_object, own).result()
            for name in (*SHIPPED, *SHIPPED.values(), *OF_0_1, *OF_TORCH):
                assert callable(import_object(name))
            for name in (
                "softlabels.objects.import_object",
                "softlabels.store.durable.os.system",
                "softlabels.lazy.importlib",
            ):
                with pytest.raises(UntrustedCode):
                    import_object(name)
            with pytest.raises(UntrustedCode):
                build(ObjectSpec("softlabels.models.Biased", {"model": own, "model_args": {}, "classes": 2}))
        assert not is_guarded()
        assert not any(name.startswith(module) for name in sys.modules)
        assert import_object(own).__name__ == "Outer"
    assert import_object("softlabels.models.Biased") is Biased


def test_a_command_looks_into_its_folder_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"beside_{tmp_path.name}"
    for file in (f"{name}.py", "yaml.py", "colorsys.py"):
        (tmp_path / file).write_text("def net(): pass")
    (tmp_path / "elsewhere" / name).mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # a folder without code in it does not count
    before = list(sys.path)
    with pytest.raises(ConfigError, match="not found"):
        import_object(f"{name}.net")
    sys.modules.pop(name, None)
    with one_command():
        for installed in ("yaml.net", "colorsys.net"):
            with pytest.raises(ConfigError, match="has no 'net'"):
                import_object(installed)
        assert sys.path == before
        assert import_object(f"{name}.net").__module__ == name
        assert sys.path == [*before, str(tmp_path)]
    assert sys.path == before


def test_while_it_is_guarded_names_of_before_are_looked_up_in_the_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline" / "models").mkdir(parents=True)
    for folder in ("pipeline", "pipeline/models"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "pipeline" / "models" / "mlp.py").write_text("class MLP: pass")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        with one_command():
            only_shipped("is somebody else's", remedy="read it")
            assert canonical("pipeline.models.mlp.MLP") == "softlabels.models.MLP"
            assert "pipeline" not in sys.modules
        with one_command():
            assert canonical("pipeline.models.mlp.MLP") == "pipeline.models.mlp.MLP"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
            del sys.modules[name]
