"""At a high learning rate attention logits explode and the transformer stops learning; qk-norm cures it.

Claim: the instability of large transformers shows in small ones at a high learning rate: the logits of attention grow
without bound, attention becomes one-hot, and the loss goes back towards chance. Normalising queries and keys keeps the
logits bounded and training succeeds at the same learning rate.

Formula: logits = qᵀk/√d; with qk-norm q and k go through LayerNorm first.

Paper: Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities; Dehghani et al.
2023, Scaling Vision Transformers to 22 Billion Parameters.

Look at: `attention.max_logit` per layer on a logarithmic axis, `attention.entropy`, which falls to 0, and
`loss.train`, of three runs: high learning rate without and with qk-norm, and a moderate one without.

Falsified by: logits below 1,000 at the end without qk-norm, or a run with qk-norm that does not learn the task.
"""

import torch
from torch import nn
from torch.nn import functional as F

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, last
from trainvitals.sample_runs.parts import take_step
from trainvitals.sample_runs.running import alone

ARMS = {
    "plain": {"learning_rate": 0.1},
    "qk-norm": {"learning_rate": 0.1, "qk_norm": True},
    "lower-rate": {"learning_rate": 0.01},
}
NUM_SYMBOLS, LENGTH = 16, 16


class Block(nn.Module):
    """Pre-LN attention with one head and a hidden layer, both residual; causal."""

    def __init__(self, width: int, qk_norm: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_q, self.norm_k = ((nn.LayerNorm(width), nn.LayerNorm(width)) if qk_norm
                                    else (nn.Identity(), nn.Identity()))  # fmt: skip
        self.hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        """Return the stream (B, T, D) after this block."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, is_causal=True))
        return x + self.hidden(self.norm2(x))


class Copier(nn.Module):
    """Two blocks between an embedding and a linear readout; predicts the second half of a sequence."""

    def __init__(self, width: int, qk_norm: bool):
        super().__init__()
        self.symbols = nn.Embedding(NUM_SYMBOLS, width)
        self.places = nn.Parameter(0.02 * torch.randn(2 * LENGTH - 1, width))
        self.blocks = nn.Sequential(Block(width, qk_norm), Block(width, qk_norm))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, NUM_SYMBOLS)

    def forward(self, tokens):
        """Return logits (B, C, LENGTH) for the second half."""
        stream = self.blocks(self.symbols(tokens) + self.places)
        return self.readout(self.norm(stream))[:, LENGTH - 1 :].transpose(1, 2)


def sequences(num: int, generator: torch.Generator):
    """Return inputs (num, 2 LENGTH − 1) and targets (num, LENGTH): symbols, then the same symbols again."""
    half = torch.randint(0, NUM_SYMBOLS, (num, LENGTH), generator=generator)
    return torch.cat([half, half], dim=1)[:, :-1], half


def train(seed=0, *, learning_rate=0.1, qk_norm=False, weight_decay=0.0, width=32, batch_size=32, num_steps=800,
          store="runs/", name="attention-logits") -> tv.Run:  # fmt: skip
    """Train a transformer of two blocks to copy random sequences; warm-up of 50 steps, then cosine."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, loss = Copier(width, qk_norm), F.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [
        torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=50),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(num_steps - 50, 1)),
    ], milestones=[50])  # fmt: skip
    with tv.watch(model, optimizer, loss=loss, train=sequences(64, generator), name=name, store=store, budget=None,
                  probes=["loss.train", "attention", "logit.scale", "logit.z", "accuracy.train"],
                  every={"loss.train": 10, "attention": 20, "logit": 20, "accuracy": 10}) as run:  # fmt: skip
        for _ in range(num_steps):
            x, y = sequences(batch_size, generator)
            take_step(optimizer, loss(model(x), y))
            schedule.step()
    return tv.open_run(run.path)


def claim(runs: Runs) -> Claim:
    """The largest logit and the loss at the end of the three runs."""
    largest = {arm: float(run.series("attention.max_logit").groupby("step")["value"].max().iloc[-1])
               for arm, run in runs.items()}  # fmt: skip
    losses = {arm: last(run, "loss.train") for arm, run in runs.items()}
    return Claim(
        shown=largest["plain"] > 1000 and losses["plain"] > 1.0 and largest["qk-norm"] < 200
        and losses["qk-norm"] < 0.1,
        effect=largest["plain"] / largest["qk-norm"],
        effect_is="largest attention logit without qk-norm over that with it",
        figures={f"largest logit, {arm}": value for arm, value in largest.items()}
        | {f"train loss at the end, {arm}": value for arm, value in losses.items()},
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
