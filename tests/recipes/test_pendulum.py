"""The pendulum of the recipe `clone`: its motion, the controller, and the log of its episodes."""

from __future__ import annotations

import numpy as np
import torch

from softlabels.recipes.pendulum import (
    LIMIT,
    SPEED,
    PendulumController,
    feedback,
    moved,
    pendulum,
    played,
    policy,
    rewards,
    seen,
    starts,
)


def test_a_step_is_that_of_the_equation_of_motion(rng: np.random.Generator) -> None:
    """ml2/3 a = m g l/2 sin(angle) + torque, m = l = 1 and g = 10, semi-implicit Euler: Gym's Pendulum-v1."""
    for angle, velocity, torque in rng.uniform((-9, -7, -4), (9, 7, 4), (50, 3)):
        acceleration = (10 / 2 * np.sin(angle) + np.clip(torque, -2, 2)) / (1 / 3)
        faster = np.clip(velocity + 0.05 * acceleration, -8, 8)
        [found] = moved(np.array([[angle, velocity]]), np.array([torque]))
        np.testing.assert_allclose(found, [angle + 0.05 * faster, faster], rtol=1e-12)
        around = np.arctan2(np.sin(angle), np.cos(angle))
        cost = around**2 + velocity**2 / 10 + np.clip(torque, -2, 2) ** 2 / 1000
        np.testing.assert_allclose(rewards(np.array([[angle, velocity]]), np.array([torque])), [-cost])


def test_the_feedback_is_the_best_near_upright() -> None:
    """No gains beside it earn more from a small angle, where its torque is within the limit."""

    def earned(gains: np.ndarray) -> float:
        near = np.array([[0.05, 0.0], [0.0, 0.1]])
        total, _ = played(lambda inputs: -(inputs[:, 1:] * (1, SPEED)) @ gains[:, None], near)
        return float(total.sum())

    best = feedback()
    for change in ((1.1, 1), (0.9, 1), (1, 1.1), (1, 0.9)):
        assert earned(best) > earned(best * change)


def test_the_controller_swings_up_from_anywhere_and_nothing_does_not() -> None:
    states = starts(200, seed=3)
    _, upright = played(policy(PendulumController()), states)
    _, hanging = played(lambda inputs: np.zeros((len(inputs), 1), np.float32), states)
    assert upright.all()
    assert hanging.mean() < 0.1
    assert np.abs(policy(PendulumController())(seen(states))).max() <= LIMIT


def test_a_log_has_what_moved_the_pendulum() -> None:
    log = pendulum(split="train", episodes=5, noise=0.5)
    clean = PendulumController()(torch.from_numpy(log["state"])).numpy()
    assert log["state"].shape == (1000, 3)
    assert 0.45 < (log["action"] - clean).std() < 0.55
    angle = np.arctan2(log["state"][:, 1], log["state"][:, 0])
    later = moved(np.stack([angle, log["state"][:, 2] * SPEED], axis=1), log["action"][:, 0])
    np.testing.assert_allclose(seen(later)[:-5], log["state"][5:], atol=1e-5)  # five episodes side by side
    other = pendulum(split="test", episodes=5)
    assert not np.isclose(other["state"], log["state"]).all(axis=1).any()
