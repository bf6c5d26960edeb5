"""Several processes that train together on this machine, over gloo: how tests start them and what they give back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

Job = Callable[[int, int, Path], Any]  # (rank, number of ranks, folder) -> what the test looks at

_SECONDS = 240


def run_ranks(job: Job, num_ranks: int, folder: Path) -> tuple[list[Any], list[int | None]]:
    """Run a function in `num_ranks` new processes; return what each gave (None if it died) and their exit codes."""
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_main, args=(job, rank, num_ranks, folder)) for rank in range(num_ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    paths = [folder / f"rank{rank}.pt" for rank in range(num_ranks)]
    return [torch.load(path, weights_only=False) if path.exists() else None for path in paths], codes


def _main(job: Job, rank: int, num_ranks: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting_point", rank=rank, world_size=num_ranks)
    found = job(rank, num_ranks, folder)
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
