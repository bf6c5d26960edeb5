"""Watch a training that several processes share.

Run it with `torchrun --nproc-per-node 2 docs/distributed_example.py --store runs/`, and add `--fsdp` for weights
that are spread over the ranks. On a machine with a GPU for each rank it trains there, over NCCL.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import trainvitals as tv

NUM_STEPS, BATCH = 40, 32


def spirals(num_samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points on three noisy spiral arms, and the arm of each."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.arange(num_samples) % 3
    radius = torch.rand(num_samples, generator=generator)
    angle = 4 * radius + 2.1 * arm + 0.2 * torch.randn(num_samples, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arm


def main() -> None:
    """Train on this rank's part of every batch, watched."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", default="runs/")
    parser.add_argument("--fsdp", action="store_true")
    options = parser.parse_args()

    on_gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).to(device)
    model = fully_shard(model) if options.fsdp else DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = (t.to(device) for t in spirals(1024, seed=0))

    with tv.watch(
        model, optimizer, loss=F.cross_entropy,
        train=(x[rank::size][:128], y[rank::size][:128]),  # each rank's own part: the probe has 128 samples of each
        heldout=spirals(256, seed=1),  # the same on every rank: it counts once
        store=options.store, name="spirals-fsdp" if options.fsdp else "spirals-ddp",
        probes=["default", "hessian.top"], every=10,
    ) as run:  # fmt: skip
        for step in range(NUM_STEPS):
            picked = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:BATCH].to(device)
            mine = picked[rank::size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[mine]), y[mine])
            loss.backward()
            optimizer.step()
            run.log(train_loss=loss)  # recorded on the first rank; elsewhere it does nothing
    if rank == 0:
        print(run.path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
