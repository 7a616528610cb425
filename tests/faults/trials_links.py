"""Promise 7: a store, a run and a cache that somebody else packed. Every name below each, also those that commands make for a
moment, is a link to a watched folder in turn; every command that takes such a folder runs over it. Nothing outside is written,
moved or removed, and of a store or a cache nothing outside is opened. The kernel watches (inotify).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from softlabels.models import ModelConfig, build_model, save_weights
from softlabels.system import local, local_files
from tests.faults.apart import apart, scratch
from tests.faults.campaign import Harm, NotHere, Outcome, Trial, repeated
from tests.stages import toy

OPENED, CHANGED = 0x20, 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800  # as <sys/inotify.h> numbers them
WRITE_ID = "0" * 32
# Names that a store, run or cache may have for a moment, or that a command would make.
OF_STORE = (
    "staging", "staging/lock", f"staging/{WRITE_ID}", f"staging/{WRITE_ID}/0", f"staging/{WRITE_ID}/record", "set_aside",
    "set_aside/1", "set_aside/1/manifest.json", "tail_basis", "tail_basis/c.0.0", "zarr.json", "state.json",
    "dataset_info.json",
)  # fmt: skip
OF_ROOT = ("README.md", "zarr.json", "dataset_dict.json", "train", "test")
OF_RUN = (
    ".lock", "checkpoint.pt.partial", "curves.png", "sweep.png", "corrected", "corrected/run.json", "corrected/distilled-seed0",
    "distilled-seed0/student.onnx", "distilled-seed0/student.pt2", "distilled-seed0/hf", "distilled-seed0/tensorboard",
    "hard-seed0/metrics.jsonl.partial",
)  # fmt: skip
KINDS = ("folder", "file", "nothing")


def _commands() -> dict[str, tuple[tuple[str, ...], ...]]:
    recipe, teacher = "--config=recipe.yaml", "--config=teacher.yaml"
    return {
        "store": (
            ("info", "store"), ("verify", "store"), ("repair", "store"), ("convert", "store", "copy"),
            ("encode", "store", "sparse", "--k=2", "--tail=uniform"), ("evaluate", "--store=store", recipe),
            ("train-student", "--store=store", recipe, "--out=new"), ("teacher-logits", "store", teacher),
            ("convert", "whole", "store", "--layout=zarr"), ("push", "store", "there"), ("pull", "store", "pulled"),
            ("pull", "whole", "store"), ("push", "whole", "store"),
        ),
        "begun": (
            ("info", "begun"), ("verify", "begun"), ("repair", "begun"), ("teacher-logits", "begun", teacher),
            ("convert", "whole", "begun", "--layout=zarr"), ("import", "outputs.npz", "begun/train"),
            ("pull", "whole", "begun"), ("push", "whole", "begun"), ("encode", "whole", "begun", "--k=2", "--tail=uniform"),
        ),
        "run": (
            ("train-student", "--store=whole", recipe, "--out=run"), ("evaluate", "run/distilled-seed0", "--trust"),
            ("export", "run/distilled-seed0", "--trust", "--formats=torch"),
            ("correct", "run", "--trust", "--class_prior=uniform"),
        ),
        "cache": (("teacher-logits", "fresh", teacher), ("train-student", "--store=whole", recipe, "--out=new")),
    }  # fmt: skip


def _prepare() -> None:
    """In an empty working folder: a sealed store, a begun one, an ended run and a cache, by the product's own commands."""
    os.environ.update(SOFTLABELS_CACHE=str(Path("cache").absolute()), SOFTLABELS_STATE=str(Path("state").absolute()))
    training = toy.recipe()["training"] | {"epochs": 1, "seeds": [0]}
    member = {"class_path": "softlabels.models.MLP", "init_args": toy.recipe()["student"]["init_args"]}
    teacher = {"members": [member | {"weights": "member.safetensors"}], "batch_size": 32}
    labels = {"layout": "zarr", "rows_per_shard": 64, "rows_per_chunk": 32, "inputs": "embed"}
    toy.write_recipe(Path("recipe.yaml"), training=training)
    toy.write_recipe(Path("teacher.yaml"), teacher=teacher, labels=labels)
    save_weights(build_model(ModelConfig(**member)), "member.safetensors")
    inputs = np.random.default_rng(0).normal(size=(70, 6)).astype(np.float32)
    np.savez("outputs.npz", logits=toy.teacher_logits(inputs), inputs=inputs)
    assert _run("teacher-logits", "whole", "--config=teacher.yaml")[0] == 0
    assert _run("train-student", "--store=whole", "--config=recipe.yaml", "--out=run")[0] == 0
    shutil.copytree("whole", "store")
    shutil.copytree("whole", "begun")
    for split in ("train", "test"):
        for name in ("manifest.json", "commits/00000.json", "logits/c.0.0.0"):
            Path("begun", split, name).unlink()


def _names(place: str) -> tuple[str, ...]:
    """Every name below a folder, and those that commands would make there."""
    found = {str(path.relative_to(place)) for path in Path(place).rglob("*")}
    if place in ("store", "begun"):
        found |= {f"{split}/{name}" for split in ("train", "test") for name in OF_STORE} | set(OF_ROOT)
    found |= set(OF_RUN) if place == "run" else set()
    return tuple(sorted(found))


def _run(stage: str, *words: str) -> tuple[int, str]:
    """Exit code and output of a command, in this process."""
    main = importlib.import_module(f"softlabels_stages.{stage.replace('-', '_')}").main
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = int(main(list(words)))
        except SystemExit as error:
            code = int(error.code or 0)
    return code, said.getvalue()


@contextlib.contextmanager
def _watched(root: Path, mask: int) -> Iterator[Callable[[], list[str]]]:
    """What happens in a folder, and in those below it, while the block runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    if handle < 0:
        raise NotHere("no inotify")
    folders = {}
    for path in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folders[libc.inotify_add_watch(handle, os.fsencode(path), mask)] = path

    def events() -> list[str]:
        with contextlib.suppress(BlockingIOError):
            data = os.read(handle, 1 << 16)
            found, at = [], 0
            while at < len(data):
                watch, kind, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0").decode()
                found.append(f"{kind & mask:#x} {folders.get(watch, root).relative_to(root)}/{name}")
                at += 16 + size
            return found
        return []

    try:
        yield events
    finally:
        os.close(handle)


def _attack(scene: Path, kind: str, place: str, name: str, words: tuple[str, ...]) -> None:
    """One name of one folder as a link of one kind, and one command."""
    with scratch() as work:
        here = Path(work) / "here"
        shutil.copytree(scene, here, symlinks=True)
        outside = Path(work) / "outside"
        outside.mkdir()
        (outside / "photo.jpg").write_text("precious")
        (outside / "0").write_text("precious")
        os.chdir(here)
        os.environ["SOFTLABELS_CACHE"] = str(here / "cache")
        link = here / place / name
        target = outside / ("behind" if kind != "nothing" else "new")
        if (
            os.path.lexists(link) and kind != "nothing"
        ):  # what was there lies outside: it would be found through the link
            shutil.move(link, target)
        elif kind == "folder":
            target.mkdir()
            (target / "a.jpg").write_text("precious")
        elif kind == "file":
            target.write_text("precious")
        if os.path.lexists(link):
            shutil.rmtree(link) if link.is_dir() else link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        before = _snapshot(outside)
        with _watched(outside, CHANGED | (OPENED if place in ("store", "begun", "cache") else 0)) as events:
            code, said = _run(*words)
            seen = events()
        os.chdir(scene)
        what = f"{' '.join(words)} with {place}/{name} a link to {kind}: exit {code}"
        if seen or _snapshot(outside) != before:
            raise Harm(f"{what}: {', '.join(seen) or 'another content'} outside")
        if "Traceback" in said:
            raise Harm(f"{what}: a traceback")


def _snapshot(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def links(count: int, seed: int) -> Outcome:
    return _trials(count, seed)


def followed_links(seed: int) -> Outcome:
    """The defence taken away: steps and files may be links."""
    local_files._STEP &= ~os.O_NOFOLLOW
    local_files._FILE &= ~os.O_NOFOLLOW
    local.LocalFolder.is_folder = lambda self, name="": self.at(name).is_dir()  # type: ignore[method-assign,misc,assignment]
    return _trials(24, seed)


def _trials(count: int, seed: int) -> Outcome:
    rng, home = np.random.default_rng(seed), Path.cwd()
    with scratch() as place:
        scene = Path(place)
        os.chdir(scene)
        try:
            _prepare()
            commands = _commands()
            cases = [
                (kind, where, name, words)
                for where in commands
                for name in _names(where)
                for kind in KINDS
                for words in commands[where]
                if f"{where}/{name}" not in words  # what the user names is a root, which may be a link
            ]
            chosen = iter([cases[at] for at in rng.permutation(len(cases))[:count]])
            return repeated(min(count, len(cases)), seed, lambda _: _attack(scene, *next(chosen)))
        finally:
            os.chdir(home)


TRIALS = (
    Trial(
        promise=7,
        what="a name below a store, a run or a cache that is a link to a watched folder, under every command",
        count=100_000,  # all of them
        quick=4,
        run=partial(apart, links),
        control=partial(apart, followed_links),
        control_what="links are followed",
        slow=True,
    ),
)
