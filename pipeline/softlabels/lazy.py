"""Names that a package hands on from its modules, each loaded when it is first used: `from softlabels import open_store` loads
no torch. They are written down once, as the package's imports under `TYPE_CHECKING`, which type checkers read too.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable


def exports(package: str) -> Callable[[str], object]:
    """The `__getattr__` of `package`, whose own source says from which module each name comes."""
    tree = ast.parse(inspect.getsource(sys.modules[package]))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return load
