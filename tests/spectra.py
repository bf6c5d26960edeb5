"""The exact spectrum of a case, and its measurement."""

import numpy as np
from cases import dense_hessian

import trainvitals as tv


def exact_spectrum(case):
    built = case.build()
    return np.linalg.eigvalsh(dense_hessian(built.model, built.loss, built.batch).numpy())  # ascending


def measured(built, what, **kwargs):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what=what, **kwargs)
