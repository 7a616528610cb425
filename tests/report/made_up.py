"""Results as `results.json` holds them, of runs that never were: fresh random scores, any sweep."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

DEFAULTS: dict[str, Any] = {"temperature": 4.0, "alpha": 0.9, "loss": "forward_kl"}
OF_KIND: dict[str, dict[str, Any]] = {
    "softmax": DEFAULTS, "sigmoid": DEFAULTS | {"loss": "bce"}, "values": {"alpha": 0.9, "loss": "mse"},
}  # fmt: skip
SHORT = {"temperature": "T=", "alpha": "alpha=", "loss": ""}


def scores(
    rng: np.random.Generator, *, temperatures: list[float], labels: bool = True, target: str = "softmax"
) -> dict[str, Any]:
    """What one model got on 500 rows."""
    if target == "values":
        two = [{name: float(rng.random()) for name in ("mse", "rmse", "r2", "cosine")} for _ in range(2)]
        return {"rows": 500, "labelled": 500 * labels, **(two[0] if labels else {}), "teacher": two[1]}
    kl = {f"{t:g}": float(rng.uniform(0.01, 0.2)) for t in temperatures}
    found: dict[str, Any] = {"rows": 500, "labelled": 500 * labels, "agreement": float(rng.uniform(0.9, 1)), "kl": kl}
    if labels and target == "sigmoid":
        measured = {name: float(rng.random()) for name in ("nll", "ece", "map")}
        found |= {"flags": 1500, "f1": {"micro": float(rng.random()), "macro": float(rng.random())}, **measured}
    elif labels:
        measured = {name: float(rng.random()) for name in ("nll", "ece", "brier")}
        found |= {"errors": int(rng.integers(10, 90)), **measured}
    return found


def results(
    rng: np.random.Generator,
    *,
    swept: dict[str, list[Any]] | None = None,
    seeds: int = 3,
    hard: bool = True,
    labels: bool = True,
    members: int = 2,
    target: str = "softmax",
) -> dict[str, Any]:
    """The results of a run: a hard student, and one distilled student for each combination of the swept values."""
    swept, defaults = swept or {}, OF_KIND[target]
    combinations = [defaults | dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    own = {float(str(given["temperature"]).rpartition(":")[2]) for given in combinations if "temperature" in given}
    temperatures = sorted({1.0, *own})

    def runs(count: int) -> list[dict[str, Any]]:
        return [scores(rng, temperatures=temperatures, labels=labels, target=target) for _ in range(count)]

    students = [{"label": "hard", "kind": "hard", "settings": {}, "scores": runs(seeds)}] if hard else []
    for settings in combinations:
        values = ", ".join(f"{SHORT[name]}{_shown(settings[name])}" for name in swept)
        label = f"distilled, {values}" if values else "distilled"
        students.append({"label": label, "kind": "distilled", "settings": settings, "scores": runs(seeds)})
    return {
        "split": "test",
        "rows": 500,
        "temperatures": temperatures,
        "seeds": list(range(seeds)),
        "swept": [name for name, values in swept.items() if len(values) > 1],
        "teacher": {"ensemble": runs(1), "members": {f"{m}: Net": runs(1) for m in range(members)}},
        "students": students,
        "store": "stores/made-up",
        "digests": {"train": "ab" * 32, "test": "cd" * 32},
        "seconds": 12.5,
    } | ({} if target == "softmax" else {"target": target})


def log(rng: np.random.Generator, *, epochs: int, validation: bool = True) -> list[dict[str, Any]]:
    """The lines of a student's metrics.jsonl."""
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        line = {"epoch": epoch, "step": 10 * epoch, "train_loss": float(rng.uniform(1, 2)), "lr": 0.1 / epoch}
        if validation:
            line |= {"validation_loss": float(rng.uniform(1, 2)), "errors": int(rng.integers(10, 90))}
        lines.append(line)
    return [*lines, {"end": True, "kept_epoch": int(rng.integers(1, epochs + 1)), "steps": 10 * epochs}]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
