"""A network that is trained on task after task stops being able to learn.

Claim: on a sequence of tasks of equal difficulty, the accuracy reached on each new task falls. Units die and the rank
of the features sinks on the way. Holding the largest singular value of each layer near 1 keeps the network able.

Formula: penalty = s · Σ_l (σ_max(W_l) − 1)² + ‖b_l‖².

Paper: Dohare et al. 2024, Loss of plasticity in deep continual learning; Lewandowski, Bortkiewicz, Kumar, György,
Schuurmans, Ostaszewski, Machado 2024, Learning Continually by Spectral Regularization.

Look at: `task_accuracy`, logged at the end of each task, with `units.dead`, `rank.effective` and
`weights.spectral.sigma_max` on one axis; the two runs beside each other.

Falsified by: a plain run whose last tasks are learned as well as the first, or a regularised one that does no better.
"""

import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import Claim, Runs, course, last
from trainvitals.sample_runs.parts import batches, digits, mlp, take_step
from trainvitals.sample_runs.running import alone

ARMS = {"plain": {"spectral_penalty": 0.0}, "spectral": {"spectral_penalty": 1e-2}}
NUM_TRAIN = 400


def train(seed=0, *, spectral_penalty=0.0, learning_rate=3e-3, weight_decay=0.0, width=100, batch_size=40,
          epochs_per_task=25, num_tasks=16, store="runs/", name="plasticity-loss") -> tv.Run:  # fmt: skip
    """Learn new random labels of the same 400 digits in every task."""
    data = digits(NUM_TRAIN, seed)
    torch.manual_seed(seed)
    model, loss = mlp(64, width, width, 10), torch.nn.functional.cross_entropy
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps_per_task = epochs_per_task * (NUM_TRAIN // batch_size)
    with tv.watch(model, optimizer, loss=loss, train=data.train, name=name, store=store, budget=None,
                  probes=["units.dead", "rank.effective", "weights.spectral", "weights.norm"],
                  every=steps_per_task) as run:  # fmt: skip
        for _ in range(num_tasks):
            y = torch.randint(0, 10, (NUM_TRAIN,))
            for rows in batches(NUM_TRAIN, batch_size, steps_per_task, int(y.sum())):
                penalty = spectral_penalty * excess(model) if spectral_penalty else 0.0
                take_step(optimizer, loss(model(data.x[rows]), y[rows]) + penalty)
            with torch.no_grad():
                run.log(task_accuracy=(model(data.x).argmax(1) == y).float().mean())
    return tv.open_run(run.path)


def excess(model) -> torch.Tensor:
    """Return Σ (σ_max − 1)² over the weight matrices plus Σ ‖b‖² over the biases."""
    parts = [(torch.linalg.matrix_norm(p, 2) - 1) ** 2 if p.ndim == 2 else p.square().sum() for p in model.parameters()]
    return torch.stack(parts).sum()


def claim(runs: Runs) -> Claim:
    """Accuracy at the end of the first and of the last four tasks."""
    first = {arm: float(course(run, "task_accuracy")[1][0]) for arm, run in runs.items()}
    end = {arm: last(run, "task_accuracy", mean_of=4) for arm, run in runs.items()}
    dead = runs["plain"].series("units.dead").groupby("step")["value"].mean()
    return Claim(
        shown=end["plain"] < 0.75 * first["plain"] and end["spectral"] > end["plain"] + 0.1,
        effect=end["plain"] / first["plain"],
        effect_is="accuracy on the last four tasks over that on the first, plain",
        figures={
            "first task, plain": first["plain"], "last four tasks, plain": end["plain"],
            "first task, spectral": first["spectral"], "last four tasks, spectral": end["spectral"],
            "dead units after the first task, plain": float(dead.iloc[1]),
            "dead units at the end, plain": float(dead.iloc[-1]),
            "effective rank at the end, plain": last(runs["plain"], "rank.effective"),
            "effective rank at the end, spectral": last(runs["spectral"], "rank.effective"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    alone(__file__)
