"""Where a loss has come to a stand.

Legend: n points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainvitals.verdicts.series import Floats

_MIN_POINTS = 8


def stands_still(smooth: Floats, most: float = 0.1) -> NDArray[np.bool_]:
    """Return where a loss fell by less than a share `most` over the last third of the run so far, (n,).

    Never within the first points. It looks back only, so that points that are added change nothing.

    >>> stands_still(np.array([4.0, 3.0, 2.0, 1.0] + [1.0] * 12)).tolist()[-4:]
    [True, True, True, True]
    >>> bool(stands_still(0.9 ** np.arange(30.0)).any())
    False
    """
    index = np.arange(len(smooth))
    then = smooth[np.maximum(index - np.maximum(index // 3, _MIN_POINTS), 0)]
    return (index >= _MIN_POINTS) & (smooth > (1 - most) * then)
