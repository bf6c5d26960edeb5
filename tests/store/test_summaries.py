import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.store.codec import DamagedError, Points
from trainvitals.store.summaries import decode_summaries, encode_summary, merge, nonfinite_mask, summarise

VALUES = st.lists(st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0]), min_size=1, max_size=20)
STEPS = st.integers(-(2**63), 2**63 - 1)


def points_of(*values, first_seq=0):
    n = len(values)
    return Points(np.arange(n) + first_seq, np.arange(n) * 10, np.arange(n) / 4, np.array(values, float))


def test_a_summary_keeps_extremes_ends_and_what_is_not_finite():
    (summary,) = summarise(points_of(1.0, np.nan, 7.0, -np.inf, -2.0, 3.0))
    assert summary["low"].tolist() == (4, 40, 1.0, -2.0)
    assert summary["high"].tolist() == (2, 20, 0.5, 7.0)
    assert (summary["first"]["value"], summary["last"]["value"]) == (1.0, 3.0)
    assert (summary["odd"]["seq"], summary["num_nonfinite"]) == (1, 2)
    assert (summary["min_step"], summary["max_step"], summary["num_points"]) == (0, 50, 6)


def test_the_mask_says_which_values_are_not_finite():
    values = np.array([1.0, np.nan, 7.0, -np.inf, -2.0, 3.0])
    blob = encode_summary(summarise(points_of(*values)), values)
    assert nonfinite_mask(blob).tolist() == [False, True, False, True, False, False]
    assert not nonfinite_mask(encode_summary(summarise(points_of(1.0, 2.0)), np.array([1.0, 2.0]))).any()


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_a_merged_summary_is_that_of_all_points(parts):
    first_seqs = np.cumsum([0, *map(len, parts)])
    points = [points_of(*values, first_seq=int(first)) for values, first in zip(parts, first_seqs, strict=False)]
    merged = merge(np.concatenate([summarise(part, series=3) for part in points]))
    whole = summarise(Points.join(points), series=3)
    whole["level"] = 1
    if whole["num_nonfinite"] == whole["num_points"]:  # no extremes
        whole[["low", "high"]] = merged[["low", "high"]]
    assert merged.tobytes() == whole.tobytes()


@given(VALUES, st.data())
def test_a_summary_comes_back_and_any_flipped_bit_is_noticed(values, data):
    summary = summarise(points_of(*values), series=5)
    blob = encode_summary(summary, np.array(values))
    assert decode_summaries([blob, blob])[1:].tobytes() == summary.tobytes()
    damaged = bytearray(blob)
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError):
        decode_summaries([blob, bytes(damaged)])
