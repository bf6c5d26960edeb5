"""Without decay, softmax rounds to exactly 1, the gradient vanishes, and learning stops before it has generalised.

Claim: once the train pairs are fitted, the gradient mostly scales the logits up. Float rounding then makes the loss of
single samples exactly 0: they give no gradient any more, and the network never groks. Taking out of each gradient the
part that points along the weights (⟂Grad) prevents it, and held-out accuracy rises without any decay.

Formula: ⟂Grad: g ← g − (⟨θ, g⟩ / ⟨θ, θ⟩) θ; collapse = share of samples with −log p(y) = 0 in float32.

Paper: Prieto, Barsbey, Mediano, Birdal 2025, Grokking at the Edge of Numerical Stability.

Look at: `softmax_collapse` and `grad.nlm`, the cosine of −g and the weights, beside `accuracy.heldout`. Adam's ε is
1e-30 here: with the usual 1e-8 the tiny gradients are damped and neither the collapse nor the cure shows.

Falsified by: a plain run that generalises, or without a sample at a loss of exactly 0 at its end; a run with ⟂Grad
that does not generalise.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, at, last, reached
from trainvitals.sample_runs.parts import mlp, modular_sums
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {"orthogonal": False}, "orthogonal": {"orthogonal": True, "num_steps": 500}}


def train(seed=0, *, orthogonal=False, learning_rate=1e-2, weight_decay=0.0, width=200, modulus=53, epsilon=1e-30,
          num_steps=3000, store="runs/", name="softmax-collapse") -> tv.Run:  # fmt: skip
    """Train on half of all pairs at once, in float32; orthogonal=True takes out the gradient along the weights."""
    pairs, others = modular_sums(modulus, 0.5, seed)
    torch.manual_seed(seed)
    model, loss = mlp(2 * modulus, width, width, modulus), torch.nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), eps=epsilon,
                                  weight_decay=weight_decay)  # fmt: skip
    with tv.watch(model, optimizer, loss=loss, train=pairs, heldout=others, name=name, store=store, budget=None,
                  probes=["accuracy", "loss.train", "softmax_collapse", "grad.nlm", "logit.scale", "weights.norm"],
                  every=max(10, num_steps // 60)) as run:  # fmt: skip
        for _ in range(num_steps):
            optimizer.zero_grad()
            loss(model(pairs[0]), pairs[1]).backward()
            if orthogonal:
                remove_radial_part(model.parameters())
            optimizer.step()
    return tv.open_run(run.path)


@torch.no_grad()
def remove_radial_part(parameters) -> None:
    """Take out of each tensor's gradient the part that points along the tensor."""
    for p in parameters:
        p.grad -= (p * p.grad).sum() / p.square().sum().clamp_min(1e-30) * p


def claim(runs: Runs) -> Claim:
    """Held-out accuracy with and without the cure, and the share of samples without a gradient."""
    plain, cured = runs["plain"], runs["orthogonal"]
    steps = plain.series("grad.nlm")
    late = steps[steps["step"] == steps["step"].max()]["value"].mean()
    early = steps[steps["step"] == 200]["value"].mean()
    return Claim(
        shown=last(plain, "accuracy.heldout") < 0.2 and last(plain, "softmax_collapse") > 0.05
        and last(cured, "accuracy.heldout") > 0.9,
        effect=last(cured, "accuracy.heldout") - last(plain, "accuracy.heldout"),
        effect_is="held-out accuracy with ⟂Grad less that without",
        figures={
            "held-out accuracy, plain": last(plain, "accuracy.heldout"),
            "held-out accuracy, ⟂Grad": last(cured, "accuracy.heldout"),
            "samples with a loss of exactly 0 at the end, plain": last(plain, "softmax_collapse"),
            "the same at step 1,000": at(plain, "softmax_collapse", 1000),
            "step of 95 % held-out accuracy, ⟂Grad": reached(cured, "accuracy.heldout", 0.95),
            "mean cosine of −g and the weights at step 200, plain": float(early), "the same at the end": float(late),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
