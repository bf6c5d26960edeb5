"""Standard errors by leaving one block of samples out at a time.

Legend: K blocks, n_k samples in block k, N samples in all, h_k = N/n_k.
"""

from __future__ import annotations

from torch import Tensor


def jackknife_error(whole: float, left_out: Tensor, counts: Tensor) -> float:
    """Return the delete-a-block jackknife's standard error of an estimate, for blocks of unequal size.

    With pseudo-values h_k·whole − (h_k − 1)·left_out_k and centre K·whole − Σ (1 − 1/h_k) left_out_k, the variance
    is the mean over k of (pseudo_k − centre)²/(h_k − 1).

    Args:
        whole: the estimate from all samples.
        left_out: (K,) the estimate without each block.
        counts: (K,) samples in each block, all above 0.

    Source: Busing, Meijer, van der Leeden 1999, "Delete-m jackknife for unequal m", equations 3 to 6.

    >>> import torch
    >>> values = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    >>> without = (values.sum() - values) / 3  # of a mean, one value a block: the usual standard error
    >>> round(jackknife_error(4.0, without, torch.ones(4)), 9), round(float(values.std() / 2), 9)
    (1.779513042, 1.779513042)
    """
    left_out, counts = left_out.double().cpu(), counts.double().cpu()
    h = counts.sum() / counts
    pseudo = h * whole - (h - 1) * left_out
    centre = len(counts) * whole - ((1 - 1 / h) * left_out).sum()
    return float(((pseudo - centre).square() / (h - 1)).mean().sqrt())
