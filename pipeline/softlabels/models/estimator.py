"""Estimators of scikit-learn, and whatever has their methods, as members of a teacher: forests, boosting, nearest neighbours.

A classifier gives the logarithms of its `predict_proba`, which are logits, a regressor its `predict`. Neighbour:
`estimator_file` reads and writes fitted ones. Students are trained by gradients, and so are none of these.

B batch, C classes, K classes that the estimator was fitted on, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabels.checks.floor import floor_of, lifted, zeros_line
from softlabels.errors import ConfigError, WeightsError
from softlabels.models.build import made, ready
from softlabels.models.config import ModelConfig
from softlabels.models.estimator_file import read_estimator
from softlabels.objects import ObjectSpec, build, import_object

LABEL_SPACE = (
    "label_space_"  # an attribute that `fit` leaves in the estimator: C, as its rows may lack the last classes
)
FLAG = "teacher.floor="
_NESTED = {"class_path", "init_args"}


class Estimator(nn.Module):
    """An estimator as a model: prepared inputs (B, ...), each row as one vector, to float32 logits (B, C) or values (B, D).

    Attributes:
        fitted: the estimator itself.
        file_digest: blake3 of its file, "" where it is of none; it is the digest of its weights. file_size: its bytes.
        target: softmax of a classifier, values of a regressor.
        classes: C of a classifier: as many as it was fitted for.
        floor: f, where probabilities p become f + (1 - C f) p.
    """

    def __init__(self, fitted: Any, *, digest: str = "", size: int = 0, floor: float | str | None = None) -> None:
        super().__init__()
        self.fitted = _in_one_thread(fitted) if digest else fitted  # it may be fitted in several
        self.file_digest, self.file_size = digest, size
        self.target = "values" if _is_regressor(fitted) else "softmax"
        self.head = f"{type(fitted).__name__} is a {'regressor' if self.target == 'values' else 'classifier'}"
        self.columns = _columns(fitted) if digest and self.target == "softmax" else None
        own = 0 if self.columns is None else 1 + int(self.columns.max())
        self.classes = int(getattr(fitted, LABEL_SPACE, own))
        self.floor = None if floor is None or self.columns is None else floor_of(str(floor), self.classes, FLAG)
        self.zeros: str | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class. Raises `ConfigError` where the estimator cannot take such rows."""
        rows = flat(inputs.cpu().numpy())
        try:
            found = self.fitted.predict(rows) if self.columns is None else self._logits(rows)
        except ValueError as error:
            raise ConfigError(
                f"{type(self.fitted).__name__} cannot take rows of {rows.dtype} and {rows.shape[1]} numbers: {error}",
                remedy="give the rows that it was fitted on (transfer_set.inputs, transfer_set.prepare)",
            ) from error
        values = np.asarray(found, np.float32).reshape(len(rows), -1)
        return torch.from_numpy(values).to(inputs.device)

    def _logits(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """log p (B, C); -inf where p is 0, as of a class that it was not fitted on, and no floor lifts it."""
        found = self.fitted.predict_proba(rows)
        p = np.zeros((len(rows), self.classes))
        p[:, self.columns] = found
        self.zeros = self.zeros or (None if self.floor else zeros_line(p, FLAG))
        with np.errstate(divide="ignore"):
            return np.log(p if self.floor is None else lifted(p, self.floor))


def build_member(config: ModelConfig, *, floor: float | str | None = None) -> nn.Module:
    """A model of a teacher, with its weights where the config names them: a `torch.nn.Module`, or an estimator as one. Where an
    argument of an estimator is an estimator, it is a mapping {class_path, init_args} too.

    Args:
        floor: the least probability that an estimator gives a class, see `softlabels.checks.floor`.

    Raises:
        ConfigError, WeightsError: as `build_model`; a file that holds something else than such an estimator.
    """
    packages = {path.partition(".")[0] for path in [config.class_path, *_paths(config.init_args)]}
    target = import_object(config.class_path)
    if isinstance(target, type) and hasattr(target, "fit") and not issubclass(target, nn.Module):
        config = replace(config, init_args=_nested(config.init_args))
    model: Any = made(config)
    if isinstance(model, nn.Module) or not hasattr(model, "fit"):
        return ready(model, config)
    if not (_is_classifier(model) or _is_regressor(model)):
        raise ConfigError(
            f"{config.class_path} is neither a classifier nor a regressor",
            remedy="name one, or a sklearn.pipeline.Pipeline that ends with one",
        )
    if _is_classifier(model) and not hasattr(model, "predict_proba"):
        raise ConfigError(
            f"{config.class_path} gives no probabilities (predict_proba)",
            remedy="put it into sklearn.calibration.CalibratedClassifierCV: {estimator: {class_path: "
            f"{config.class_path}}}}}",
        )
    if config.weights is None:
        return Estimator(model)
    packages |= {type(model).__module__.partition(".")[0]}
    path = Path(config.weights)
    found, digest = read_estimator(path, packages)
    if type(found) is not type(model):
        raise WeightsError(
            f"{config.weights} holds a {type(found).__name__}, and {config.class_path} is a {type(model).__name__}",
            remedy="name the class that was fitted",
        )
    return Estimator(found, digest=digest, size=path.stat().st_size, floor=floor)


def fit(model: Estimator, inputs: NDArray[np.generic], labels: NDArray[np.generic], *, classes: int, seed: int) -> None:
    """Fit an estimator on all of these rows.

    Args:
        inputs: (R, ...) prepared rows.
        labels: (R,) hard labels from 0 to C - 1, or (R, D) values.
        classes: C, of a classifier.
        seed: every `random_state` that the recipe leaves open.

    Raises:
        ConfigError: the estimator refuses the rows.
    """
    own = model.fitted.get_params()
    open_ones = [name for name, value in own.items() if value is None and name.rpartition("__")[2] == "random_state"]
    model.fitted.set_params(**dict.fromkeys(open_ones, seed))
    targets = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    try:
        model.fitted.fit(flat(inputs), targets)
    except ValueError as error:
        raise ConfigError(
            f"{type(model.fitted).__name__} refuses the training rows: {error}",
            remedy="correct init_args of the member, or transfer_set.prepare",
        ) from error
    if model.target == "softmax":
        setattr(model.fitted, LABEL_SPACE, classes)


def flat(inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    """Rows (B, ...) as vectors (B, F)."""
    return inputs.reshape(len(inputs), -1)


def _columns(fitted: Any) -> NDArray[np.int64]:
    """(K,) which class each column of predict_proba is. Raises `WeightsError` where that cannot be said."""
    known = getattr(fitted, "classes_", None)
    if isinstance(known, list):
        raise WeightsError(
            f"{type(fitted).__name__} was fitted on several labels a row",
            remedy="give its outputs to `softlabels import --target=sigmoid`",
        )
    names = np.asarray([] if known is None else known)
    if names.size == 0 or names.dtype.kind not in "biuf" or (names != names.astype(np.int64)).any() or names.min() < 0:
        said = (
            "is not fitted" if known is None else f"was fitted on the labels {', '.join(map(repr, names.tolist()[:3]))}"
        )
        raise WeightsError(
            f"{type(fitted).__name__} {said}",
            remedy="fit it on the numbers of the classes, from 0, as `softlabels train-teacher` does",
        )
    return names.astype(np.int64)


def _in_one_thread(fitted: Any) -> Any:
    """The estimator with `n_jobs` of 1, as threads add up a forest's votes in any order."""
    own = fitted.get_params() if hasattr(fitted, "get_params") else {}
    jobs = [name for name, value in own.items() if value is not None and name.rpartition("__")[2] == "n_jobs"]
    return fitted.set_params(**dict.fromkeys(jobs, 1)) if jobs else fitted


def _is_classifier(model: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(model))


def _is_regressor(model: Any) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(model))


def _nested(value: Any) -> Any:
    """Arguments with estimators in the place of mappings that name one."""
    if isinstance(value, Mapping):
        args = {name: _nested(each) for name, each in value.items()}
        if "class_path" in value and value.keys() <= _NESTED:
            return build(ObjectSpec(value["class_path"], args.get("init_args", {})))
        return args
    return [_nested(each) for each in value] if isinstance(value, list | tuple) else value


def _paths(value: Any) -> Iterator[str]:
    """The class paths among arguments."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield str(value["class_path"])
        value = list(value.values())
    for each in value if isinstance(value, list | tuple) else ():
        yield from _paths(each)
