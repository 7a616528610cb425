"""Plots show the numbers that they were given, nothing is cut off, and the file is whole."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from softlabels.errors import MissingExtra
from softlabels.report import curves, figure, plots
from tests.report import made_up

MANY = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0]
SWEEPS = {
    "temperature": {"temperature": [1.0, 2.0, 4.0, 8.0, 20.0]},
    "both": {"temperature": [1.0, 4.0, 20.0], "alpha": [0.5, 0.9]},
    "alpha": {"alpha": [0.1, 0.5, "linear:1:0.1"]},
    "loss": {"loss": ["forward_kl", "dkd", "logit_mse"]},
    "schedules": {"temperature": [1.0, "cosine:20:4"], "loss": ["forward_kl", "$dkd$"]},
    "fifty": {"temperature": MANY, "alpha": [0.1, 0.3, 0.5, 0.7, 0.9]},
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    figures: list[Any] = []

    @contextlib.contextmanager
    def keep(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with figure.figure_in(*args, **kwargs) as made:
            figures.append(made)
            yield made

    monkeypatch.setattr(plots, "figure_in", keep)
    monkeypatch.setattr(curves, "figure_in", keep)
    return figures


def check_whole(path: Path, drawn: Any) -> None:
    """The PNG is the figure, and every text and legend lies within it."""
    with Image.open(path) as image:
        image.verify()
        assert np.abs(np.subtract(image.size, drawn.bbox.size)).max() <= 1
    renderer, box = drawn.canvas.get_renderer(), drawn.bbox
    (legend,) = drawn.legends
    panels = [axes.get_tightbbox(renderer) for axes in drawn.axes]  # with ticks, labels and titles
    for extent in [*panels, legend.get_window_extent(renderer)]:
        assert box.x0 <= extent.x0 < extent.x1 <= box.x1
        assert box.y0 <= extent.y0 < extent.y1 <= box.y1
    assert not any(legend.get_window_extent(renderer).overlaps(extent) for extent in panels)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(panels, 2))


@pytest.mark.parametrize("swept", SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_shows_means_and_deviations(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any], swept: dict[str, list[Any]]
) -> None:
    found = made_up.results(rng, swept=swept)
    plots.sweep_png(found, tmp_path / "sweep.png")
    check_whole(tmp_path / "sweep.png", drawn[0])
    panels = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["errors, test", "KL(teacher || student) at T=1"]
    assert panels[0].get_ylabel() == "rows of 500 with a hard label"
    for axes, value in zip(panels, (lambda s: s["errors"], lambda s: s["kl"]["1"]), strict=True):
        expected = [[value(s) for s in student["scores"]] for student in found["students"][1:]]
        points = [y for container in axes.containers for y in container.lines[0].get_ydata()]
        bars = [bar for container in axes.containers for bar in container.lines[2][0].get_segments()]
        assert sorted(points) == pytest.approx(sorted(np.mean(expected, axis=1)))
        spreads = [(bar[1, 1] - bar[0, 1]) / 2 for bar in bars]
        assert sorted(spreads) == pytest.approx(sorted(np.std(expected, axis=1, ddof=1)))
        hard = [value(scores) for scores in found["students"][0]["scores"]]
        references = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]  # axhline's
        teacher = [value(found["teacher"]["ensemble"][0])] if axes is panels[0] else []
        assert references == pytest.approx([*teacher, np.mean(hard)])
    numeric = all(isinstance(value, float) for value in next(iter(swept.values())))
    assert (panels[0].get_xscale() == "log") == ("temperature" in swept and numeric)
    ticks = [text.get_text() for text in panels[0].get_xticklabels()]
    assert ticks == [f"{v:g}" if isinstance(v, float) else v.replace("$", r"\$") for v in next(iter(swept.values()))]


def test_errors_to_choose_by_are_those_of_the_validation_rows(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any]
) -> None:
    """Seen to fail: the only panel of errors showed the test split, by which nothing may be chosen."""
    found = made_up.results(rng, swept=SWEEPS["temperature"]) | {"rows": 50, "counted": "positions"}
    for student in found["students"]:
        student["validation"] = [{"errors": int(rng.integers(5, 40)), "labelled": 60} for _ in student["scores"]]
    plots.sweep_png(found, tmp_path / "sweep.png")
    check_whole(tmp_path / "sweep.png", drawn[0])
    chosen, judged, _ = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in (chosen, judged)] == [
        "errors, validation: choose by these",
        "errors, test: not to choose by",
    ]
    assert chosen.get_ylabel() == "positions of 60 with a hard label"
    for axes, of in ((chosen, "validation"), (judged, "scores")):
        expected = [np.mean([s["errors"] for s in student[of]]) for student in found["students"][1:]]
        points = [y for container in axes.containers for y in container.lines[0].get_ydata()]
        assert sorted(points) == pytest.approx(sorted(expected))
    lines = [line for line in chosen.lines if list(line.get_xdata()) == [0, 1]]
    assert len(lines) == 1  # the hard student; a teacher is not judged on these rows


def test_a_sweep_without_labels_or_hard_student_shows_kl_alone(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any]
) -> None:
    found = made_up.results(rng, swept=SWEEPS["temperature"], labels=False, hard=False, seeds=1)
    found["students"][0]["scores"][0]["kl"]["1"] = None  # infinite
    plots.sweep_png(found, tmp_path / "sweep.png")
    check_whole(tmp_path / "sweep.png", drawn[0])
    (axes,) = drawn[0].axes
    assert len(axes.containers[0].lines[0].get_ydata()) == 4


@pytest.mark.parametrize(("settings", "seeds", "epochs"), [(1, 1, 1), (2, 5, 6), (1, 50, 4), (10, 5, 6), (50, 1, 30)])
def test_curves_show_every_seed_and_the_mean(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any], settings: int, seeds: int, epochs: int
) -> None:
    logs = {
        f"distilled-T{t}-alpha0.9-seed{seed}": made_up.log(rng, epochs=epochs)
        for t in range(settings)
        for seed in range(seeds)
    }
    curves.curves_png(logs, tmp_path / "curves.png")
    check_whole(tmp_path / "curves.png", drawn[0])
    axes = next(axes for axes in drawn[0].axes if axes.get_title(loc="left").startswith("validation loss"))
    assert len(axes.lines) == settings * (seeds + 1 if seeds > 1 else 1)
    first = [logs[f"distilled-T0-alpha0.9-seed{seed}"][:-1] for seed in range(seeds)]
    mean = np.mean([[line["validation_loss"] for line in lines] for lines in first], axis=0)
    bold = axes.lines[seeds if seeds > 1 else 0]
    assert bold.get_ydata() == pytest.approx(mean)
    assert list(bold.get_xdata()) == list(range(1, epochs + 1))
    kept = logs["distilled-T0-alpha0.9-seed0"][-1]["kept_epoch"]
    assert kept in [point[0] for point in axes.collections[0].get_offsets()]
    assert len(drawn[0].axes) == 4


def test_without_validation_there_are_two_panels_and_unfinished_logs_are_drawn(
    rng: np.random.Generator, tmp_path: Path, drawn: list[Any]
) -> None:
    logs = {f"hard-seed{seed}": made_up.log(rng, epochs=4 + seed, validation=False) for seed in range(2)}
    logs["hard-seed0"][1]["train_loss"] = None
    logs["hard-seed0"].pop()
    curves.curves_png(logs, tmp_path / "curves.png")
    check_whole(tmp_path / "curves.png", drawn[0])
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == ["training loss", "learning rate"]
    assert list(drawn[0].axes[0].lines[2].get_xdata()) == [1, 3, 4]  # where both seeds have a value


def test_a_torn_line_ends_a_log() -> None:
    assert curves.log_lines('{"epoch": 1}\n{"epoch": 2}\n{"epo') == [{"epoch": 1}, {"epoch": 2}]


def test_the_same_results_give_the_same_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    found = made_up.results(rng, swept=SWEEPS["both"])
    for name in ("a.png", "b.png"):
        plots.sweep_png(found, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_without_matplotlib_the_extra_is_named(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"matplotlib.*pip install 'softlabels\[report\]'"):
        curves.curves_png({"hard-seed0": made_up.log(rng, epochs=2)}, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []
