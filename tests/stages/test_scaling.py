"""Several workers by commands: parts, sealing, and the launchers of docs/scaling.md."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from softlabels_stages import teacher_logits
from tests.docs.test_code_blocks import blocks
from tests.stages.conftest import ROOT
from tests.stages.kills import digests
from tests.stages.test_teacher_logits import TOPK, write_recipe

CUT = {"rows_per_shard": 16}
RECIPE = "--config=recipe.yaml"
SBATCH = """#!{python}
# A stand-in for sbatch: what the script asks for, as far as the script of docs/scaling.md does.
import os, re, subprocess, sys
*flags, script = sys.argv[1:]
asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\\S+)$", open(script).read(), re.M))
asked |= dict(flag[2:].split("=") for flag in flags)
numbers = [int(number) for number in asked.get("array", "1").split("-")]
first, last = numbers[0], numbers[-1]
if "gpus-per-task" in asked and "ntasks" not in asked:  # what sbatch of SLURM 23.11 says
    sys.exit("--gpus-per-task used without either --gpus or -n/--ntasks is not allowed")
tasks = {{"SLURM_NTASKS": asked["ntasks"], "SLURM_ARRAY_TASK_COUNT": str(last - first + 1)}}
jobs = [subprocess.Popen(["sh", script], env=os.environ | tasks | {{"SLURM_ARRAY_TASK_ID": str(number)}})
        for number in range(first, last + 1)]
sys.exit(max([abs(job.wait()) for job in jobs]))
"""
SRUN = """#!{python}
# A stand-in for srun: the command, a process a task.
import os, subprocess, sys
tasks = [subprocess.Popen(sys.argv[1:], env=os.environ | {{"SLURM_PROCID": str(number)}})
         for number in range(int(os.environ["SLURM_NTASKS"]))]
sys.exit(max([abs(task.wait()) for task in tasks]))
"""


def test_parts_are_done_one_by_one_and_what_is_whole_is_sealed_without_the_teacher(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(Path("recipe.yaml"), model="Linear", labels=CUT)
    assert teacher_logits.main([RECIPE, "--store=whole"]) == 0
    assert teacher_logits.main([RECIPE, "--store=store", "--shards=2/2"]) == 0
    out = capsys.readouterr().out
    assert "train: this part is done; of 10 shards 5 are missing (1, 3, 5, 7, 9, of parts 1/2); the worker" in out
    assert out.count(" is done; ") == 3
    last = r"not sealed yet: store \(other parts are missing; the last one seals the store, or: \S*softlabels teacher-logits .*"
    assert re.fullmatch(last, out.splitlines()[-1])
    assert teacher_logits.main([RECIPE, "--store=store", "--seal"]) == 2
    assert "UnsealedStore: store/test still lacks shards 0, 2, 4; write them, then seal" in capsys.readouterr().err
    assert teacher_logits.main([RECIPE, "--store=store", "--shards=1/2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("sealed: store (")
    assert digests("store") == digests("whole")
    Path("store/train/manifest.json").unlink()
    Path("member-0.safetensors").unlink()
    assert teacher_logits.main([RECIPE, "--store=store", "--seal"]) == 0
    assert digests("store") == digests("whole")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shards=5/4"], "--shards=5/4; give i/n with i from 1 to n, such as --shards=1/8"),
        (["--shards=2"], "--shards=2; give i/n"),
        (["--lapse=0"], "lapse is 0; give a number of seconds above 0"),
        (["--seal", "--shards=1/2"], "--seal and --shards exclude each other; give one"),
        (["--engine=ray", "--shards=1/2"], "--shards and --engine exclude each other; give one"),
        (["--engine=spark"], "engine"),
        (["--workers=4"], "--workers without --engine=ray; give both, or neither"),
        (["--gpus=0", "--shards=1/2"], "--gpus without --engine=ray; give both, or neither"),
        (["--engine=ray", "--workers=0"], "workers=0, gpus=None; give at least 1 worker, and 0 GPUs or more"),
        (["--engine=ray", "--lapse=0"], "lapse is 0; give a number of seconds above 0"),
        (["--engine=ray", "--gpus=-1"], "workers=None, gpus=-1.0; give at least 1 worker"),
        (["--seal"], "there is no store at store/test; run teacher-logits first"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_teacher_is_loaded(
    words: list[str], said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(Path("recipe.yaml"), model="Linear", labels=CUT)
    Path("member-0.safetensors").unlink()
    assert teacher_logits.main([RECIPE, "--store=store", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_engine_that_is_not_installed_is_named(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_recipe(Path("recipe.yaml"), model="Linear", labels=CUT)
    assert teacher_logits.main([RECIPE, "--store=store", "--engine=ray"]) == 2
    said = 'ConfigError: --engine=ray needs Ray; pip install "softlabels[ray]"'
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("which", ["--array=1-8", "--ntasks=8", "torchrun"])
def test_the_launchers_of_the_page(which: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks in the place of eight. sbatch and srun are stand-ins, torchrun is itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{work}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    write_recipe(Path("mine.yaml"), model="Linear", labels=CUT | TOPK)
    assert teacher_logits.main(["--config=mine.yaml", "--store=whole"]) == 0
    [code] = [
        code for _, code, _ in blocks((ROOT / "docs" / "scaling.md").read_text()) if which in code and "teacher" in code
    ]
    code = code.replace("=1-8", "=1-3").replace("=8", "=3").replace("/8", "/3")
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        Path(name).write_text(text.format(python=sys.executable))
        Path(name).chmod(stat.S_IRWXU)
    Path("job").write_text(code.replace("torchrun", f"{sys.executable} -m torch.distributed.run"))
    launcher = "sh" if which == "torchrun" else "sbatch"
    done = subprocess.run([launcher, "job"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests("stores/mine") == digests("whole")
    assert "taken over" not in done.stdout
    if "array" in which:  # a part that failed is submitted again, alone
        assert subprocess.run([launcher, "--array=2", "job"], capture_output=True, timeout=300).returncode == 0
