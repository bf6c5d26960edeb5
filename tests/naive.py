"""The definitions written out in loops over samples, pairs and classes: slow, and sure."""

from itertools import combinations

import numpy as np
import torch


def pairwise_v1(b):
    floor = b.shape[1] // 2
    pairs = [min(int((b[p] != b[q]).sum()), floor) / floor for p, q in combinations(range(len(b)), 2)]
    return sum(pairs) / len(pairs)


def by_unit_v2(b):
    shares = [min(int(s), len(b) - int(s)) / (len(b) // 2) for s in b.sum(0)]
    return sum(shares) / len(shares)


def pair_cosines(G, keep=lambda i, j: True):
    pairs = [(i, j) for i, j in combinations(range(len(G)), 2) if keep(i, j)]
    return sum(float(G[i] @ G[j] / (G[i].norm() * G[j].norm())) for i, j in pairs) / len(pairs)


def collapse(h, y, W):
    """The definitions, one class and one pair at a time."""
    C = W.shape[0]
    means = np.stack([h[y == c].mean(0) for c in range(C)])
    centre = means.mean(0)
    within, between = np.zeros((h.shape[1],) * 2), np.zeros((h.shape[1],) * 2)
    variances = np.zeros(C)
    for c in range(C):
        for x in h[y == c]:
            within += np.outer(x - means[c], x - means[c]) / (y == c).sum() / C
            variances[c] += ((x - means[c]) ** 2).sum() / (y == c).sum()
        between += np.outer(means[c] - centre, means[c] - centre) / C
    values, vectors = np.linalg.eigh(between)
    inverse = sum(np.outer(v, v) / s for s, v in zip(values[-(C - 1) :], vectors.T[-(C - 1) :], strict=True))
    pairs = [(c, k) for c in range(C) for k in range(C) if c != k]
    M = means - centre

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    def variation(rows):
        norms = np.array([np.linalg.norm(r) for r in rows])
        return norms.std() / norms.mean()

    distances = np.array([[((x - m) ** 2).sum() for m in means] for x in h])
    return {
        "nc1": np.trace(within @ inverse) / C,
        "trace_ratio": np.trace(within) / np.trace(between),
        "cdnv": np.mean([(variances[c] + variances[k]) / 2 / ((means[c] - means[k]) ** 2).sum() for c, k in pairs]),
        "nc2.norms_means": variation(M),
        "nc2.norms_weights": variation(W),
        "nc2.angles_means": np.mean([abs(cosine(M[c], M[k]) + 1 / (C - 1)) for c, k in pairs]),
        "nc2.angles_weights": np.mean([abs(cosine(W[c], W[k]) + 1 / (C - 1)) for c, k in pairs]),
        "nc3": ((W.T / np.linalg.norm(W) - M.T / np.linalg.norm(M)) ** 2).sum(),
        "nc4": np.mean(distances.argmin(1) != (h @ W.T).argmax(1)),
    }


def sample_gradients(model, loss, x, y):
    """Return (N, P), one backward pass a sample, over trainable parameters, tied ones once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        parts = torch.autograd.grad(loss(model(x[i : i + 1]), y[i : i + 1]), parameters, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)
