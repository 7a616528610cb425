"""Time and memory of the fused loss at 8,192 positions of 131,072 classes, beside plain torch and Liger's kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.fused_loss import MIB, WAYS, Problem, Size, made_up
from benchmarks.gpu.asking import asked, finish, seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a section."""
    device, small = asked(__doc__ or "", argv)
    size = Size(64, 1_000, 32, 2.0) if small else Size(8_192, 131_072, 2_048, 2.0)
    problem = made_up(size, device)
    print(
        f"\n## Fused loss\n\n{size.positions:,} positions, {size.classes:,} classes, width {size.width:,}, float32, T = 2."
    )
    print("MiB: torch's allocator at the peak, beyond what was there and the gradients.\n")
    print("| how | ms | MiB |\n| --- | ---: | ---: |")
    for name, act in (*WAYS.values(), ("Liger, fused linear forward KL", liger_kl)):
        print(line(name, act, problem, device))


def line(name: str, act: Callable[[Problem], None], problem: Problem, device: torch.device) -> str:
    """A way's line, or why there is none."""
    try:
        took = seconds(lambda: (act(problem), problem.gradients()), device, rounds=3)
    except (ImportError, torch.OutOfMemoryError) as error:
        return f"| {name} | left out: {' '.join(str(error).split())[:100]} | |"
    return f"| {name} | {took * 1e3:,.1f} | {memory(act, problem, device)} |"


def memory(act: Callable[[Problem], None], problem: Problem, device: torch.device) -> str:
    """MiB at the peak; on a CPU benchmarks/fused_loss.py measures them, in processes of their own."""
    if device.type != "cuda":
        return "-"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    act(problem)
    finish(device)
    gradients = sum(each.nbytes for each in problem.gradients())
    return f"{(torch.cuda.max_memory_allocated(device) - before - gradients) / MIB:,.0f}"


def liger_kl(problem: Problem) -> None:
    """KL(p || q) of a teacher that is given by hidden states and matrix, here the student's own: no labels are stored."""
    if problem.hidden.device.type != "cuda":
        raise ImportError("its kernels need a GPU")
    from liger_kernel.transformers import LigerFusedLinearJSD  # type: ignore[import-not-found,unused-ignore]

    kernel = LigerFusedLinearJSD(jsd_beta=0.0, temperature=problem.size.temperature)
    hidden, weight = problem.hidden, problem.weight
    kernel(hidden, weight, hidden.detach().flip(0), weight.detach(), None).backward()


if __name__ == "__main__":
    main()
