import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainvitals.store import codec
from trainvitals.store.codec import Frames, Points

STEPS = hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-(2**63), 2**63 - 1))
# every bit pattern, so NaN payloads, signed zeros, infinities and subnormals are among them
FLOATS = hnp.arrays(np.uint64, st.integers(0, 200), elements=st.integers(0, 2**64 - 1)).map(lambda a: a.view(float))
SPECIAL = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e300, 5e-324, 0.1, float(np.float32(0.1))])


settings.register_profile("store", deadline=None)  # the machine is shared: how long it takes is no finding
settings.load_profile("store")


def same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


@given(STEPS)
def test_integers_come_back_however_huge_or_out_of_order(values):
    same_bits(codec.decode_integers(codec.encode_integers(values)), values)


@given(STEPS.filter(lambda a: len(a) > 3))
def test_extreme_spacings_of_integers_come_back(values):
    values = np.cumsum(np.repeat(values[:3], 5))  # runs of equal differences that overflow
    same_bits(codec.decode_integers(codec.encode_integers(values)), values)


@given(FLOATS | hnp.arrays(np.float64, st.integers(0, 50), elements=SPECIAL))
def test_floats_come_back_bit_for_bit(values):
    same_bits(codec.decode_floats(codec.encode_floats(values)), values)


@given(FLOATS | hnp.arrays(np.float64, st.integers(0, 50), elements=st.floats(0, 4e9).map(lambda t: round(t, 6))))
def test_times_come_back_bit_for_bit(values):
    same_bits(codec.decode_times(codec.encode_times(values)), values)


def test_float32_values_take_half_the_room():
    values = np.random.default_rng(0).normal(size=1024)
    narrow = values.astype(np.float32).astype(np.float64)
    assert len(codec.encode_floats(narrow)) < 0.6 * len(codec.encode_floats(values))


def test_a_signalling_nan_is_not_quieted_by_float32():
    values = np.array([0x7FF0000000000001, 0x3FF0000000000000], np.uint64).view(float)
    same_bits(codec.decode_floats(codec.encode_floats(values)), values)


@given(st.data(), st.integers(0, 20), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_frames_come_back(data, num_frames, num_series):
    ints = hnp.arrays(np.int64, num_frames, elements=st.integers(-(2**63), 2**63 - 1))
    frames = Frames(
        data.draw(ints), data.draw(ints), data.draw(hnp.arrays(float, num_frames, elements=SPECIAL)),
        data.draw(hnp.arrays(float, (num_frames, num_series), elements=SPECIAL)),
    )  # fmt: skip
    back = codec.decode_frames(codec.encode_frames(frames))
    same_bits(back.seq, frames.seq)
    same_bits(back.step, frames.step)
    same_bits(back.time, frames.time)
    same_bits(back.values, frames.values)


def test_a_chunk_comes_back_and_costs_less_than_16_bytes_a_point():
    rng = np.random.default_rng(1)
    n = 1024
    times = codec.round_time(1.7e9 + np.cumsum(0.01 + 1e-4 * rng.random(n)))
    points = Points(np.arange(n), np.arange(n) * 3, times, rng.normal(size=n))
    data = codec.encode_chunk(codec.encode_axis(points.seq, points.step, points.time), points.value)
    back = codec.decode_chunk(data)
    for name in ("seq", "step", "time", "value"):
        same_bits(getattr(back, name), getattr(points, name))
    assert len(data) <= 16 * n


DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f8", ">i4"])


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7)))
def test_arrays_come_back_with_their_dtype_and_shape(array):
    back = codec.decode_array(codec.encode_array(array))
    same_bits(back, array.astype(array.dtype.newbyteorder("<")))


@given(st.dictionaries(st.text(max_size=8), FLOATS, max_size=4))
@settings(max_examples=30, deadline=None)
def test_named_arrays_come_back(arrays):
    back = codec.decode_arrays(codec.encode_arrays(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        same_bits(back[name], array)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array([1j])])
def test_arrays_of_anything_else_are_refused(array):
    with pytest.raises(TypeError, match="expected an array of floats"):
        codec.encode_array(array)


def blobs():
    numbers = np.random.default_rng(0).normal(size=8)
    axis = codec.encode_axis(np.arange(8), np.arange(8), numbers)
    yield codec.encode_chunk(axis, numbers), codec.decode_chunk
    yield codec.encode_frames(Frames(np.arange(8), np.arange(8), numbers, numbers[:, None])), codec.decode_frames
    yield codec.encode_arrays({"value": numbers}), codec.decode_arrays


@pytest.mark.parametrize(("data", "decode"), list(blobs()), ids=["chunk", "frames", "arrays"])
def test_any_flipped_bit_and_any_cut_is_noticed(data, decode):
    decode(data)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(codec.DamagedError):
            decode(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(codec.DamagedError):
            decode(data[:length])


def points_of(*values):
    n = len(values)
    return Points(np.arange(n), np.arange(n) * 10, np.zeros(n), np.array(values, float))


def test_parts_that_arrive_interleaved_are_joined_in_order_of_arrival():
    whole = points_of(0.0, 1.0, 2.0, 3.0)
    joined = Points.join([whole[np.array([0, 3])], whole[np.array([1, 2])]])
    assert joined.value.tolist() == [0.0, 1.0, 2.0, 3.0]
