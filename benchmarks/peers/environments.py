"""An environment of its own for each peer, under .venv/peers/NAME; `make bench-peers` makes them.

Each lies beside the project's own environment and sees it, so that all read with one build of torch and NumPy: what a peer
wants in another version is installed in its own. A peer that does not install is named with its reason on every page
(`found`), never left out. zarr-python, `datasets` and NumPy are what the project itself installs, and need none.

    python -m benchmarks.peers.environments [NAME ...]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv" / "peers"
PINNED: dict[str, tuple[str, ...]] = {
    "tensorstore": ("tensorstore==0.1.86",),
    "torchdata": ("torchdata==0.11.0",),
    "streaming": ("mosaicml-streaming==0.13.0",),
    "litdata": ("litdata==0.2.76",),
    "grain": ("grain==0.2.18",),
    "lance": ("pylance==14.0.2",),
    "webdataset": ("webdataset==1.0.2",),
}
FAILED = "failed.txt"  # in the environment: why it is none


def main(argv: Sequence[str] | None = None) -> None:
    """Make those that are named, all by default, and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PINNED)}; all by default")
    for name in parser.parse_args(argv).names or PINNED:
        install(name)
        print(f"{name}: {reason(name) or 'installed'}", flush=True)


def install(name: str) -> None:
    """Make the environment, or leave the reason why it is none where `reason` finds it."""
    folder = ENVIRONMENTS / name
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)  # noqa: S603  pinned names alone
    inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    here = sysconfig.get_path("purelib")
    Path(inside, "beside.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(  # noqa: S603  as above
        [*pip, "-c", str(ROOT / "constraints.txt"), *PINNED[name]], capture_output=True, text=True, check=False
    )
    if done.returncode:
        (folder / FAILED).write_text(last_line(done.stderr) + "\n")


def last_line(text: str) -> str:
    """Of what a program said: its error."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")


def reason(name: str) -> str | None:
    """Why the environment `name` cannot be used, or None where it can."""
    folder = ENVIRONMENTS / name
    if not (folder / "bin" / "python").exists():
        return "not installed: run `make bench-peers`"
    failed = folder / FAILED
    return f"did not install: {failed.read_text().strip()}" if failed.exists() else None


def python(name: str | None) -> Path:
    """The interpreter of the environment `name`, or the project's own."""
    return Path(sys.executable) if name is None else ENVIRONMENTS / name / "bin" / "python"


if __name__ == "__main__":
    main()
