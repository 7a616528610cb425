"""Any word for any flag of any stage: typed arguments, or one error of ours."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softlabels.errors import SoftLabelsError
from softlabels_stages.commands import COMMANDS
from softlabels_stages.recipe import _flag, _known, parse

TEXTS = [
    "", " ", "0", "-1", "1e999", "nan", "-inf", "9" * 400, "1" * 5000, "[", "{", "[1,", "{a: 1}", "null", "true", "~", "\udcff",
    "é💥", "!!python/name:os.system", "&a [*a]", "[\n" * 2000, "a: b: c", "'", '"', "%", "@", "- -",
    "1,2,,3", "0x10",
]  # fmt: skip
WORDS = st.one_of(st.sampled_from(TEXTS), st.integers().map(str), st.floats().map(str), st.text(max_size=20))


def stages() -> dict[str, tuple[type, tuple[str, ...]]]:
    """The arguments of every stage, and its sections whose fields are flags."""
    found = {}
    for stage in COMMANDS:
        module = importlib.import_module(f"softlabels_stages.{stage.replace('-', '_')}")
        name = "".join(part.capitalize() for part in stage.split("-"))
        found[stage] = (getattr(module, name), ("training",) if stage == "train-student" else ())
    return found


def flags_of(stage: str) -> list[str]:
    """The flags of a stage that no stage before it has."""
    every, new = stages(), []
    for each in COMMANDS:
        cls, flat = every[each]
        names = [_flag(name, flat) for name in _known(cls) if name != "config"]
        if each == stage:
            return [name for name in names if name not in new] or names[:1]
        new += names
    raise AssertionError(stage)


@pytest.mark.parametrize("step", [32, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", COMMANDS)
def test_any_word_for_any_flag_is_a_value_or_one_error(stage: str, step: int) -> None:
    """Wrong types, NaN, huge, empty, very long, no UTF-8: one in `step`. Seen to fail: OverflowError, IndexError, YAML's own
    errors.
    """
    (cls, flat), flags = stages()[stage], flags_of(stage)

    @settings(max_examples=40 // step, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.sampled_from(flags), WORDS), min_size=1, max_size=3))
    def check(given_flags: list[tuple[str, str]]) -> None:
        _try(cls, stage, flat, [f"--{flag}={word}" for flag, word in given_flags])

    for number, flag in enumerate(flags):
        for word in TEXTS[number % step :: step]:
            _try(cls, stage, flat, [f"--{flag}={word}"])
    check()


def _try(cls: type, stage: str, flat: tuple[str, ...], words: list[str]) -> None:
    try:
        parse(words, cls, stage=stage, doc="", flat=flat)
    except SoftLabelsError as error:
        if type(error).__name__ not in ("ConfigError", "TransferSetError"):
            raise
