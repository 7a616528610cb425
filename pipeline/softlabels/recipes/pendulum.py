"""A simulated pendulum that is swung up and held (recipe `clone`): its motion, a controller, logged actions, returns.

The pendulum is the one of Gym's Pendulum-v1: a rod of 1 kg and 1 m, g = 10 m/s2, steps of 0.05 s, a torque of at most 2 Nm,
which cannot lift it at once. B pendulums side by side. A state is (angle, velocity): radians from upright, radians a second. A
policy is given (cosine, sine, velocity / 8), (B, 3) float32, and gives torques (B, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LIMIT, SPEED, STEP = 2.0, 8.0, 0.05  # Nm, radians a second, seconds
STEPS = 200  # of an episode
_FALL, _PUSH = 15.0, 3.0  # acceleration of sin(angle) and of a torque: 3 g / (2 l), 3 / (m l2)
Floats = NDArray[np.float64]
Policy = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class PendulumController(nn.Module):
    """Brings the energy to that of the upright pendulum at rest, and balances it there by linear feedback (LQR).

    Args:
        gain: torque for each unit of missing energy and of velocity.
        near: where feedback takes over: |angle| below it, and the velocity small enough for the torque to hold it.
    """

    untrained = ()  # it needs no weights

    def __init__(self, gain: float = 1.0, near: float = 0.5) -> None:
        super().__init__()
        self.gain, self.near = gain, near
        self.feedback: Tensor
        self.register_buffer("feedback", torch.from_numpy(feedback()).float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Torques (B, 1) within the limit, of states (B, 3) as policies are given them."""
        cosine, sine, speed = inputs.unbind(dim=1)
        angle, velocity = torch.atan2(sine, cosine), SPEED * speed
        energy = velocity.square() / 2 + _FALL * (cosine - 1)
        pump = -self.gain * energy * velocity
        hold = -(self.feedback[0] * angle + self.feedback[1] * velocity)
        is_near = (angle.abs() < self.near) & (hold.abs() < 2 * LIMIT)
        return torch.where(is_near, hold, pump).clamp(-LIMIT, LIMIT)[:, None]


def feedback() -> Floats:
    """The gains (2,) of the regulator that is best near upright for the costs of `rewards`: Riccati's equation, iterated."""
    a = np.array([[1 + _FALL * STEP**2, STEP], [_FALL * STEP, 1.0]])
    b = np.array([[_PUSH * STEP**2], [_PUSH * STEP]])
    q, r = np.diag([1.0, 0.1]), np.array([[0.001]])
    p = q
    for _ in range(1000):
        k = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        p = q + a.T @ p @ (a - b @ k)
    gains: Floats = k[0]
    return gains


def moved(states: Floats, torques: Floats) -> Floats:
    """States (B, 2) one step later."""
    velocity = states[:, 1] + (_FALL * np.sin(states[:, 0]) + _PUSH * np.clip(torques, -LIMIT, LIMIT)) * STEP
    velocity = np.clip(velocity, -SPEED, SPEED)
    return np.stack([states[:, 0] + velocity * STEP, velocity], axis=1)


def rewards(states: Floats, torques: Floats) -> Floats:
    """-(angle2 + 0.1 velocity2 + 0.001 torque2) of each, the angle from -pi to pi: (B,)."""
    angle = (states[:, 0] + np.pi) % (2 * np.pi) - np.pi
    costs: Floats = angle**2 + 0.1 * states[:, 1] ** 2 + 0.001 * np.clip(torques, -LIMIT, LIMIT) ** 2
    return -costs


def seen(states: Floats) -> NDArray[np.float32]:
    """States (B, 2) as a policy is given them: (B, 3)."""
    angle, velocity = states.T
    return np.stack([np.cos(angle), np.sin(angle), velocity / SPEED], axis=1).astype(np.float32)


def starts(count: int, seed: int) -> Floats:
    """States that episodes start from: any angle, at most one radian a second."""
    return np.random.default_rng(seed).uniform((-np.pi, -1.0), (np.pi, 1.0), (count, 2))


def policy(model: nn.Module) -> Policy:
    """A trained model as a policy."""

    @torch.inference_mode()
    def torques(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model(torch.from_numpy(inputs)).numpy()
        return found

    model.eval()
    return torques


def played(acts: Policy, states: Floats, steps: int = STEPS) -> tuple[Floats, NDArray[np.bool_]]:
    """Episodes from states (B, 2): the sum of the rewards of each, and whether it ends upright, within 0.2 radians: (B,)."""
    total = np.zeros(len(states))
    for _ in range(steps):
        torques = acts(seen(states))[:, 0].astype(np.float64)
        total += rewards(states, torques)
        states = moved(states, torques)
    return total, np.cos(states[:, 0]) > np.cos(0.2)


def pendulum(*, split: str, episodes: int = 100, noise: float = 0.5, seed: int = 0) -> dict[str, NDArray[Any]]:
    """States of the controller's own episodes with actions as a log has them: a factory of transfer sets.

    What moved the pendulum is the controller's torque plus noise, so that episodes leave the controller's own paths; that is
    what the log has.

    Args:
        split: the name of the split; each has starts and noise of its own.
        episodes: how many, of 200 states.
        noise: standard deviation of what is added to a torque, in Nm.
        seed: of starts and noise.

    Returns:
        state (R, 3) float32, action (R, 1) float32.
    """
    random = np.random.default_rng([seed, *split.encode()])
    states, acts = random.uniform((-np.pi, -1.0), (np.pi, 1.0), (episodes, 2)), policy(PendulumController())
    inputs, actions = [], []
    for _ in range(STEPS):
        inputs.append(seen(states))
        actions.append(acts(inputs[-1]) + random.normal(0, noise, (episodes, 1)))
        states = moved(states, actions[-1][:, 0])
    return {"state": np.concatenate(inputs), "action": np.concatenate(actions).astype(np.float32)}
