"""`teacher-logits --engine=ray` on a cluster of two nodes on this machine. `make ray` runs it, in an environment with Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softlabels_stages import teacher_logits
from tests.stages import toy
from tests.stages.kills import digests
from tests.stages.test_teacher_logits import TOPK, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # Ray's own
RECIPE = "--config=recipe.yaml"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of a core each; the head has one too, and holds no actor."""
    pytest.importorskip("ray", reason="make ray runs it")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: beside other tests they would get no time
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    options = {"object_store_memory": 150_000_000}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **options})
    made.lost = made.add_node(num_cpus=1, **options)
    made.add_node(num_cpus=1, **options)
    yield made
    made.shutdown()


def spoilt(split: str) -> dict[str, Any]:
    """The factory of a transfer set, a row of which no check of the teacher asks about."""
    rows = toy.points(split)
    if split == "train":
        rows["x"][151] = 3e38
    return rows


def test_a_node_that_is_lost_in_the_middle_changes_no_digest(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    labels = TOPK | {"rows_per_shard": 16}
    write_recipe(Path("recipe.yaml"), model="Linear", labels=labels)
    assert teacher_logits.main([RECIPE, "--store=whole"]) == 0

    def lose() -> None:
        while len([*Path("store").glob("*/commits/*.json")]) < 5:
            time.sleep(0.01)
        cluster.remove_node(cluster.lost, allow_graceful=False)

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    words = [RECIPE, "--store=store", "--engine=ray", f"--address={cluster.address}", "--workers=2"]
    assert teacher_logits.main(words) == 0
    losing.join()
    out = capsys.readouterr().out
    assert "ray: 17 shards for up to 2 workers" in out
    assert digests("store") == digests("whole")
    assert teacher_logits.main(words) == 0  # it is sealed

    write_recipe(Path("recipe.yaml"), model="Linear", labels=labels | {"rows_per_shard": 32})
    assert teacher_logits.main(words) == 2  # an actor's error, as itself
    assert (
        "SpecMismatch: store/test was begun with another specification (labels.rows_per_shard"
        in capsys.readouterr().err
    )


def test_what_an_actor_raises_is_raised_as_itself(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = toy.recipe()["transfer_set"] | {"factory": {"class_path": "tests.jobs.test_on_ray.spoilt"}}
    write_recipe(Path("recipe.yaml"), model="Linear", transfer_set=given)
    said = []
    for more in ([], ["--engine=ray", f"--address={cluster.address}"]):
        assert teacher_logits.main([RECIPE, f"--store=store-{len(more)}", *more]) == 2
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert said[0].startswith("LogitsOverflow: ")
    assert said[1] == said[0]
