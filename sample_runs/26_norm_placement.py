"""Post-LN transformers have their largest gradients near the output, Pre-LN ones near the input.

Claim: at initialisation a Post-LN transformer has larger gradients in its last block than in its first, the more so the
deeper it is, which is why it needs a warm-up. In a Pre-LN one it is the other way round.

Formula: Pre-LN: x + F(LN(x)); Post-LN: LN(x + F(x)); compare ‖∇L‖ of the last and the first block.

Paper: Xiong et al. 2020, On Layer Normalization in the Transformer Architecture; Shleifer, Weston, Ott 2021,
NormFormer: Improved Transformer Pretraining with Extra Normalization.

Look at: `grad.norm` of the blocks at step 0. Only the start is claimed: the need for a warm-up was not tried, and that
gradients of the last Pre-LN block fall like one over the root of the depth did not show on every seed.

Falsified by: with 24 blocks, a last block with a larger gradient than the first under Pre-LN, or with a smaller one
under Post-LN.
"""

import torch
from torch import nn

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs
from trainvitals.sample_runs.parts import descend
from trainvitals.sample_runs.running import alone

ARMS = {
    "pre-4": {"pre_norm": True, "depth": 4}, "pre-24": {"pre_norm": True, "depth": 24},
    "post-4": {"pre_norm": False, "depth": 4}, "post-24": {"pre_norm": False, "depth": 24},
}  # fmt: skip
NUM_CLASSES = 10


class Classifier(nn.Module):
    """Blocks of attention and a hidden layer, a linear readout of the first place."""

    def __init__(self, width: int, depth: int, pre_norm: bool):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=pre_norm)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()
        self.readout = nn.Linear(width, NUM_CLASSES)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.xavier_uniform_(p)  # as in the paper; torch's own start makes branches small

    def forward(self, x):
        """Return logits (N, C)."""
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x)[:, 0])


def train(seed=0, *, depth=24, pre_norm=True, learning_rate=1e-3, weight_decay=0.0, width=64, num_steps=1,
          store="runs/", name="norm-placement") -> tv.Run:  # fmt: skip
    """Measure at the start, and after one step of Adam, on random sequences of length 16."""
    torch.manual_seed(seed)
    data = torch.randn(32, 16, width), torch.arange(32) % NUM_CLASSES
    model, loss = Classifier(width, depth, pre_norm), nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    with tv.watch(model, optimizer, loss=loss, train=data, name=name, store=store, budget=None, every=1, inputs=False,
                  probes=["grad.norm", "loss.train"]) as run:  # fmt: skip
        descend(model, optimizer, loss, data, num_steps)
    return tv.open_run(run.path)


def block_norm(run: tv.Run, place: int) -> float:
    """Return the norm of the gradient of a whole block at step 0; place −1 is the last."""
    points = run.series("grad.norm")
    points = points[(points["step"] == 0) & points["key"].str.startswith("blocks.")]
    blocks = points["key"].str.split(".").str[1].astype(int)
    wanted = blocks.max() if place < 0 else place
    return float((points[blocks == wanted]["value"] ** 2).sum() ** 0.5)


def claim(runs: Runs) -> Claim:
    """The gradient of the last block over that of the first."""
    ratios = {arm: block_norm(run, -1) / block_norm(run, 0) for arm, run in runs.items()}
    return Claim(
        shown=ratios["pre-24"] < 1 < ratios["post-24"],
        effect=ratios["post-24"] / ratios["pre-24"],
        effect_is="last block's gradient over the first's: Post-LN over Pre-LN, 24 blocks",
        figures={f"last over first, {arm}": value for arm, value in ratios.items()},
    )


if __name__ == "__main__":
    alone(__file__)
