"""`label` on a Ray cluster. Ray Data hands out the shards to actors that hold the teacher: what a lost node had goes to another
one, and their number follows the cluster's size. All nodes need the same environment and the folders that the recipe names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from softlabels.errors import ConfigError, Interrupted, SoftLabelsError
from softlabels.jobs.label import at_work, seal
from softlabels.jobs.shards import Shards
from softlabels.jobs.watch import LOGGED, Watch, counted
from softlabels.store.commit import recorded_shards
from softlabels.store.records import Manifest
from softlabels.system.places import folder_of
from softlabels.teacher.config import LabelsConfig, TeacherConfig
from softlabels.teacher.ensemble import load_ensemble
from softlabels.transfer import TransferSetConfig


@dataclass(frozen=True)
class Pass:
    """What every actor needs to know of a pass; `folder` is where relative paths begin, and of `shards` the engine names one
    after the other.
    """

    transfer_set: TransferSetConfig
    teacher: TeacherConfig
    labels: LabelsConfig
    store: str
    folder: str
    shards: Shards = field(default_factory=lambda: Shards(named={}))


def label_on_ray(
    what: Pass,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus: float | None = None,
    watch: Watch = LOGGED,
) -> dict[str, Manifest]:
    """Label all splits on a cluster, and seal them. What is stopped goes on by the same call, or by `label`.

    Args:
        address: of the cluster, as `ray.init` takes it; by default that of `$RAY_ADDRESS`, else one is started on this machine.
        workers: most actors; by default one a pending shard, as far as the cluster can hold them.
        gpus: that an actor takes; by default 1 where the cluster has some.

    Returns:
        The manifest of each split's store.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster; or no worker is to run.
        Interrupted: `watch` asked to stop. And as `label`, whatever an actor raises.
    """
    if (workers is not None and workers < 1) or (gpus is not None and not gpus >= 0):
        raise ConfigError(f"workers={workers}, gpus={gpus}", remedy="give at least 1 worker, and 0 GPUs or more")
    with _cluster(address) as ray, _unwrapped():
        needs = {"num_cpus": 1, "num_gpus": min(1, ray.cluster_resources().get("GPU", 0)) if gpus is None else gpus}
        sizes = ray.get(ray.remote(_begin).options(max_retries=-1, **needs).remote(what))
        root = folder_of(what.store)
        pending = [
            {"split": split, "shard": shard}
            for split, many in sizes.items()
            for shard in sorted(set(range(many)) - recorded_shards(root.within(split)))
        ]
        if pending:
            most = min(workers or len(pending), len(pending))
            watch.say(f"ray: {counted(len(pending), 'shard')} for up to {counted(most, 'worker')}")
            shards = ray.data.from_items(pending, override_num_blocks=len(pending))
            pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(most, _room(ray, needs)))
            done = shards.map_batches(_Labeller, fn_constructor_args=(what,), batch_size=1, compute=pool, **needs)
            for _ in tqdm(done.iter_rows(), total=len(pending), desc="ray", unit="shard", disable=None):
                if watch.should_stop():
                    raise Interrupted(f"stopped before {root} was whole", remedy="run the same command again to resume")
    return seal(what.store, tuple(sizes), watch=watch)


def _room(ray: Any, needs: dict[str, float]) -> int:
    """How many actors the cluster can hold as it is, and at least 1: they start at once, more as it grows."""
    there = ray.cluster_resources()
    kinds = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return max(1, min(int(there.get(kinds[name], 0) // need) for name, need in needs.items() if need))


def _begin(what: Pass) -> dict[str, int]:
    """Make the plan, and the first shard, which binds it; the number of shards of each split. What is wrong with a recipe shows
    here, before there are many actors.
    """
    with _at_work(what) as worker:
        sizes: dict[str, int] = worker.sizes
        worker.label(next(iter(sizes)), [0])
    return sizes


class _Labeller:
    """An actor: it holds the teacher, and open stores."""

    def __init__(self, what: Pass) -> None:
        # The stores stay open as long as the actor lives: who opens them else is alone, and sweeps what this one stages.
        self._open = ExitStack()
        self._worker = self._open.enter_context(_at_work(what))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for split, shard in zip(batch["split"], batch["shard"], strict=True):
            self._worker.label(str(split), [int(shard)])
        return batch


@contextmanager
def _at_work(what: Pass) -> Iterator[Any]:
    os.chdir(what.folder)
    teacher = load_ensemble(what.teacher)
    with at_work(what.transfer_set, teacher, what.labels, what.store, what.shards, LOGGED) as worker:
        yield worker


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected. Raises `ConfigError`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("--engine=ray needs Ray", remedy='pip install "softlabels[ray]"') from error
    own = {name: value for name, value in os.environ.items() if name.startswith("SOFTLABELS_")}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": own})
    except ConnectionError as error:
        raise ConfigError(
            f"there is no Ray cluster at {address}", remedy="give its address, or leave it out"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.raise_original_map_exception = False, True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _unwrapped() -> Iterator[None]:
    """An error of ours that an actor raised, as itself."""
    try:
        yield
    except Exception as error:
        found: Any = error
        while hasattr(found, "cause") or not isinstance(found, SoftLabelsError):  # Ray's are of both kinds
            found = getattr(found, "cause", None) or found.__cause__
            if found is None:
                raise
        if found.remedy:
            found.args = (f"{found.what}; {found.remedy}",)  # without what Ray Data puts behind it
        if found is error:
            raise
        raise found from error
