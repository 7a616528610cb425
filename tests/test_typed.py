"""The typed door: what `softlabels` exports, and that mypy sees it in a user's file."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import softlabels

RIGHT = """
import numpy as np

from softlabels import DamagedStore, Store, UnsealedStore, errors, open_store


def entropy(path: str) -> float:
    try:
        store: Store = open_store(path, split="train")
    except UnsealedStore as error:
        raise SystemExit(error.exit_code) from error
    except (DamagedStore, errors.MissingExtra) as error:
        raise SystemExit(str(error)) from error
    log_p = store.log_probs([3, 1, 4], temperature=8.0)
    return float(-(np.exp(log_p) * log_p).sum()) / store.classes
"""
WRONG = """
import softlabels
from softlabels import open_store

open_store(3)
store = open_store("stores/mine")
store.log_probs([1])
store.log_prob([1], temperature=1.0)
try:
    open_store("stores/mine", splits="train")
except softlabels.errors.NoSuchError:
    pass
except softlabels.AnotherError:
    pass
"""
COMPLAINTS = {  # line -> what mypy says of it
    5: r'Argument 1 to "open_store" has incompatible type "int"',
    7: r'Missing named argument "temperature" for "log_probs" of "Store"',
    8: r'"Store" has no attribute "log_prob"',
    10: r'Unexpected keyword argument "splits" for "open_store"',
    11: r'has no attribute "NoSuchError"',
    13: r'has no attribute "AnotherError"',
}
# None of these files is about torch and the like, and reading their types takes mypy a quarter of a minute.
SETTINGS = "[mypy]\nstrict = true\n[mypy-torch.*,datasets.*,zarr.*,pyarrow.*]\nfollow_imports = skip\n"


@pytest.mark.slow
def test_mypy_sees_the_types_in_a_users_file(tmp_path: Path) -> None:
    """It finds the package where Python does: no path is told."""
    for name, text in {"right.py": RIGHT, "wrong.py": WRONG, "mypy.ini": SETTINGS}.items():
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    command = [sys.executable, "-m", "mypy", "--cache-dir=cache", "--no-error-summary", "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == [*COMPLAINTS], done.stdout
    for line, words in zip(errors, COMPLAINTS.values(), strict=True):
        assert line.startswith("wrong.py:")
        assert re.search(words, line)


def test_all_is_sorted_and_static() -> None:
    tree = ast.parse(Path(softlabels.__file__).read_text())
    [value] = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__"
    ]
    assert ast.literal_eval(value) == softlabels.__all__ == sorted(set(softlabels.__all__))
    assert set(softlabels.__all__) <= set(dir(softlabels))


@pytest.mark.parametrize("name", softlabels.__all__)
def test_every_name_is_there(name: str) -> None:
    found = getattr(softlabels, name)
    if name != "errors":
        assert found.__name__ == name
        assert found.__doc__


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'softlabels' has no attribute 'open_stores'"):
        softlabels.open_stores  # noqa: B018


def test_packages_say_that_they_are_typed() -> None:
    root = Path(__file__).parent.parent
    for package in ("pipeline/softlabels", "stages/softlabels_stages"):
        assert (root / package / "py.typed").is_file()
