from __future__ import annotations

import json
from pathlib import Path

import pytest

from softlabels.errors import ConfigError, MissingExtra
from softlabels.objects import ObjectSpec, build, import_object, require_extra

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
        ("fails", {"value": 1, "split": "x"}, "given split by the pipeline"),
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
