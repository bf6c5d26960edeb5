"""Spectra, and how often an estimate of the trace lies within its stated error."""

import numpy as np
import torch

SPECTRA = {
    "flat": torch.linspace(0.5, 1.5, 150, dtype=torch.float64),
    "decaying": 1 / torch.arange(1, 151, dtype=torch.float64),
    "outliers": torch.cat([torch.linspace(-0.1, 0.2, 140), torch.linspace(5, 50, 10)]).double(),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def share_inside(estimate, A, num_products, seeds=200):
    exact = float(A.trace())
    found = [estimate(A, generator=seeded(s), num_products=num_products) for s in range(seeds)]
    return np.mean([abs(f.value - exact) <= 2 * f.standard_error + 1e-9 * abs(exact) for f in found])
