"""Two pictures of docs/gallery.md that show what students do: a pendulum swung up, and points made of noise.

    softlabels teacher-logits --config=clone --store=stores/clone
    softlabels train-student --config=clone --store=stores/clone --seeds=0 --out=runs/clone
    python -m benchmarks.gallery_runs clone runs/clone

and the same with diffuse_2d. Each takes half a minute of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml

from benchmarks.clone import students
from benchmarks.diffuse import World, made
from benchmarks.gallery import DOCS, OTHER, STUDENT
from softlabels.models import build_model
from softlabels.recipes.pendulum import STEP, STEPS, PendulumController, Policy, moved, policy, seen
from softlabels.report.figure import figure_in
from softlabels.student.trainer import WEIGHTS

POINTS = 1000


def main() -> None:
    """Draw one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("clone", "diffuse_2d"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, default=DOCS / "gallery", help="folder of the pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"clone": clone, "diffuse_2d": diffuse}[options.what](options.run, options.output / f"{options.what}.png")


def clone(run: Path, path: Path) -> None:
    """The angle of a pendulum that hangs at first, by the controller and by the student that was taught its actions."""
    student = build_model(students(run, "distilled")[0])
    seconds = STEP * np.arange(STEPS + 1)
    with figure_in(path, width=4.6, height=2.0) as figure:
        axes = figure.subplots()
        axes.plot(seconds, angles(policy(PendulumController())), color=OTHER, linewidth=3, label="controller")
        axes.plot(seconds, angles(policy(student)), color=STUDENT, label="student, 4,481 parameters")
        axes.set(xlabel="seconds", ylabel="degrees from upright")
        axes.legend()


def angles(acts: Policy) -> list[float]:
    """Degrees from upright, step by step of an episode that begins at the bottom."""
    states, found = np.array([[np.pi - 0.1, 0.0]]), []
    for _ in range(STEPS + 1):
        found.append(float(np.degrees(np.arctan2(np.sin(states[0, 0]), np.cos(states[0, 0])))))
        states = moved(states, acts(seen(states))[:, 0].astype(np.float64))
    return [abs(angle) for angle in found]


def diffuse(run: Path, path: Path) -> None:
    """Noise, and what the teacher makes of it in 50 steps and the student in one."""
    world = World(yaml.safe_load((run / "config.yaml").read_text()))
    weights = next(run.glob(f"distilled*/{WEIGHTS}"))
    noise = world.noise["test"][:POINTS]
    shown = {
        "noise": noise,
        "teacher, 50 steps": world.samples[:POINTS],
        "student, 1 step": made(world.student(weights).eval(), noise),
    }
    with figure_in(path, width=4.6, height=1.8) as figure:
        for axes, (title, points) in zip(figure.subplots(1, 3, sharex=True, sharey=True), shown.items(), strict=True):
            axes.plot(*points.T.numpy(), ".", color=STUDENT if "student" in title else "#606060", markersize=1.5)
            axes.set_title(title)
            axes.set_aspect("equal")


if __name__ == "__main__":
    main()
