"""What a model gives for a batch, as a tensor a target, or a refusal that says what it should give.

N = B x P distributions of a batch, V outputs of a model.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from softlabels.errors import ConfigError, LogitsError, some
from softlabels.teacher.expected import Expected


def by_target(output: object, expected: Expected, lead: tuple[int, ...], *, who: str) -> dict[str, Tensor]:
    """A model's outputs (N, V) for each target, of one with the axes `lead` (B,) or (B, P) before the last.

    Raises:
        LogitsError: something else than floats of such a shape, or no mapping where targets have names.
        ConfigError: a target that it has no output for.
    """
    wanted = [*expected.targets]
    if wanted == [""]:
        return {"": _flat(output, "", expected, lead, who)}
    if not isinstance(output, Mapping):
        raise LogitsError(
            f"{who} gives {_shown(output)}, and the targets to be stored are {some(wanted)}",
            remedy="a teacher of several targets returns a mapping of tensors by the targets' names",
        )
    if lacking := [name for name in wanted if name not in output]:
        raise ConfigError(
            f"{who} has no output for the target {some(lacking)}: it gives {some(output)}",
            remedy="name the targets as the model's outputs (labels.targets), or leave this one out",
        )
    return {name: _flat(output[name], name, expected, lead, who) for name in wanted}


def strangers(output: object, expected: Expected) -> set[str]:
    """Names of outputs that no target has."""
    return {*map(str, output)} - {*expected.targets} if isinstance(output, Mapping) else set()


def of_target(name: str) -> str:
    """What messages say behind what is of a target."""
    return f" for the target {name}" if name else ""


def _flat(output: object, name: str, expected: Expected, lead: tuple[int, ...], who: str) -> Tensor:
    """A model's outputs (N, V) for a target. Raises `LogitsError`."""
    if isinstance(output, Tensor) and output.is_floating_point() and output.shape[:-1] == lead and output.numel():
        return output.flatten(0, -2)
    what, axes = "logits", "(batch, classes)" if len(lead) == 1 else "(batch, positions, classes)"
    if expected.targets[name].target == "values":
        what = "values"
    if expected.sequence is not None:
        axes = "(batch, positions, vocabulary), positions = tokens - 1"
    of = f" of {lead[1]} positions" if len(lead) > 1 else ""
    raise LogitsError(
        f"{who} gives {_shown(output)}{of_target(name)} for a batch of {lead[0]} rows{of}",
        remedy=f"a teacher's forward returns float {what} of shape {axes}{_hint(output, name, lead)}",
    )


def _shown(output: object) -> str:
    """An output that is none, for a message."""
    if isinstance(output, Tensor):
        return f"{output.dtype} {tuple(output.shape)}"
    return f"a mapping of {some(output)}" if isinstance(output, Mapping) else type(output).__name__


def _hint(output: object, name: str, lead: tuple[int, ...]) -> str:
    """What else a remedy says of an output whose rows are (`lead`) these."""
    if isinstance(output, Mapping):
        return "" if name else "; a mapping is for targets that have names (labels.targets)"
    if isinstance(output, Tensor) and output.shape == lead:
        return "; one number is an axis, too: outputs.unsqueeze(-1)"
    if not isinstance(output, Tensor) or len(lead) < 2 or output.shape[:1] != lead[:1]:
        return ""
    rows, positions = lead
    if output.ndim == 2 and output.shape[1] > positions and output.shape[1] % positions == 0:
        return f"; positions and classes are two axes: outputs.reshape({rows}, {positions}, -1)"
    if output.ndim == 3 and output.shape[2] == positions:
        return "; the classes are the last axis: outputs.transpose(1, 2)"
    return ""
