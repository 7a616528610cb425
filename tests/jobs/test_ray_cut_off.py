"""`teacher-logits --engine=ray` on two nodes in network namespaces, one of which is cut off in mid-pass: its link is down,
and all its processes are alive. `make ray` runs it, as root on Linux.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from softlabels_stages import teacher_logits
from tests.stages import toy
from tests.stages.conftest import ROOT
from tests.stages.kills import digests
from tests.stages.test_teacher_logits import TOPK, write_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HEAD, OTHER, LINK = f"softlabels-{os.getpid()}-head", f"softlabels-{os.getpid()}-cut", "veth0"
ADDRESS = {HEAD: "10.203.17.1", OTHER: "10.203.17.2"}  # nobody else sees them
SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}  # that Ray gives up a node

PAUSE = 0.05  # seconds that each member thinks about a batch
MANY = {"factory": {"class_path": "tests.jobs.test_ray_cut_off.points"}}


def points(split: str) -> dict[str, np.ndarray]:
    """The factory of the transfer set: enough rows that a second worker comes in time."""
    parts = [toy.points(split, noise=1 + number / 10) for number in range(8)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def networks() -> Iterator[None]:
    """Two network namespaces that reach each other by one link, and nothing else."""
    pytest.importorskip("ray", reason="make ray runs it")
    try:
        for name in (HEAD, OTHER):
            ip("netns", "add", name)
        ip("link", "add", LINK, "netns", HEAD, "type", "veth", "peer", "name", LINK, "netns", OTHER)
        for name in (HEAD, OTHER):
            ip("-n", name, "addr", "add", f"{ADDRESS[name]}/24", "dev", LINK)
            ip("-n", name, "link", "set", LINK, "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("netns", "exec", name, "true")
    except (OSError, subprocess.CalledProcessError) as error:
        remove_networks()
        pytest.skip(f"no network namespaces here, which take root and iproute2: {getattr(error, 'stderr', error)}")
    yield
    remove_networks()


def remove_networks() -> None:
    with suppress(OSError):
        for name in (HEAD, OTHER):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def inside(name: str) -> set[int]:
    """The processes in a namespace."""
    own, found = Path(f"/run/netns/{name}").stat().st_ino, set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it has ended
            if path.stat().st_ino == own:
                found.add(int(path.parts[2]))
    return found


@pytest.fixture
def nodes(networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two Ray nodes of a core each, the head and another one."""
    monkeypatch.chdir(tmp_path)
    here = [ROOT, ROOT / "pipeline", ROOT / "stages"]
    own = {"SOFTLABELS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(map(str, here))}
    for name, value in {**own, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", **SOON}.items():
        monkeypatch.setenv(name, value)
    folder = tempfile.mkdtemp(prefix="ray-")  # a socket's path is short
    head = ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={folder}"]
    try:
        for name, words in ((HEAD, head), (OTHER, [f"--address={ADDRESS[HEAD]}:6379"])):
            start = ["-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=150000000"]
            more = ["--disable-usage-stats", f"--node-ip-address={ADDRESS[name]}", *words]
            subprocess.run(["ip", "netns", "exec", name, sys.executable, *start, *more], check=True)
        yield
    finally:
        for name in (OTHER, HEAD):
            while pids := inside(name):
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def at_work(name: str) -> set[int]:
    """The processes in a namespace that hold a claim."""
    found = set()
    for claim in Path("store").glob("*/staging/claims/*"):
        with suppress(FileNotFoundError):
            found.add(int(claim.read_text().split()[1]))  # process N on ...
    return found & inside(name)


def test_a_node_that_is_cut_off_in_the_middle_changes_no_digest(nodes: None) -> None:
    recipe = Path("recipe.yaml")
    cut = {"labels": TOPK | {"rows_per_shard": 16}, "transfer_set": toy.recipe()["transfer_set"] | MANY}
    write_recipe(recipe, **cut)
    assert teacher_logits.main([f"--config={recipe}", "--store=whole"]) == 0
    write_recipe(recipe, seconds=PAUSE, **cut)
    words = [f"--config={recipe}", "--store=store", "--engine=ray", f"--address={ADDRESS[HEAD]}:6379", "--workers=2"]
    run = ["ip", "netns", "exec", HEAD, sys.executable, "-m", "softlabels_stages.teacher_logits", *words]
    with subprocess.Popen(run) as driver:
        while not (at_work(HEAD) and (worker := at_work(OTHER))):
            assert driver.poll() is None
            time.sleep(0.01)
        ip("-n", OTHER, "link", "set", LINK, "down")
        assert worker <= inside(OTHER)  # it is cut off, and alive
        before = len([*Path("store").glob("*/commits/*.json")])
        assert driver.wait() == 0
    assert before < 100  # of 140 shards
    assert digests("store") == digests("whole")
