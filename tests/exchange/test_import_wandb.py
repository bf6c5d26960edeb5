"""Offline runs of Weights & Biases: a file that wandb 0.31.0 recorded, with host and environment taken out of it."""

from pathlib import Path

import numpy as np
import pytest

import trainvitals as tv
from trainvitals.exchange.import_wandb import BLOCK, DAMAGED, PIECE, PREFIX, _crc, find_wandb, log_records
from trainvitals.exchange.recording import record
from trainvitals.store.errors import StoreError

FILE = Path(__file__).parent / "run-offline.wandb"


@pytest.fixture
def imported(tmp_path):
    (found,) = find_wandb(FILE)
    done = record(found, tmp_path)
    return tv.open_run(done.path), done


def test_a_run_comes_with_its_numbers_steps_times_and_words(imported):
    run, done = imported
    assert (run.name, run.tags, run.note) == ("my run", ("a", "b"), "some note")
    loss = run.series("loss")
    assert loss["step"].tolist() == list(range(0, 40, 2))
    np.testing.assert_array_equal(loss["value"], [1 / (i + 1) for i in range(20)])
    assert loss["time"].is_monotonic_increasing
    assert abs(run.started - loss["time"].iloc[0]) < 5  # wandb starts a moment before the first point
    np.testing.assert_array_equal(run.series("nested.acc")["value"], [i / 20 for i in range(20)])
    odd = run.series("odd")["value"].to_numpy()
    np.testing.assert_array_equal(odd, [0, 1, 2, np.nan, np.inf, -np.inf, *range(6, 20)])
    assert run.series("flag")["value"].tolist() == [1.0]
    assert done.left_out == {"str": 1}  # the logged word
    assert run.meta["config"] == {"lr": 0.1, "layers": [3, 4], "api_key": "***", "nested": {"a": 1}}
    assert "hunter2" not in repr(run.meta)


def test_a_histogram_is_a_density_over_its_bins(imported):
    run, _ = imported
    ((_, _, grid, density, _),) = run.spectra("hist").itertuples(index=False)
    np.testing.assert_allclose(grid, [1.5, 2.5, 3.5, 4.5])  # of 1, 2, 3, 4, 5, 5, 5 in four bins
    np.testing.assert_allclose(density, [1 / 7, 1 / 7, 1 / 7, 4 / 7])


def pieces(data: bytes) -> bytes:
    """One record as wandb writes it, cut at the ends of blocks."""
    out, at, is_first = b"", PREFIX.size, True
    while True:
        room = BLOCK - at % BLOCK
        if room < PIECE.size:
            out, at = out + bytes(room), at + room
            continue
        part, data = data[: room - PIECE.size], data[room - PIECE.size :]
        kind = (1 if not data else 2) if is_first else (4 if not data else 3)
        out += PIECE.pack(_crc(kind, part), len(part), kind) + part
        at, is_first = at + PIECE.size + len(part), False
        if not data:
            return out


@pytest.mark.parametrize("size", [0, 1, BLOCK - 14, BLOCK - 13, BLOCK, 3 * BLOCK + 5])
def test_a_record_of_any_length_is_put_together_again(tmp_path, size):
    data = np.random.default_rng(size).bytes(size)
    file = tmp_path / "x.wandb"
    file.write_bytes(FILE.read_bytes()[: PREFIX.size] + pieces(data))
    assert list(log_records(file)) == [data]


def test_a_file_that_was_cut_off_gives_what_is_whole(tmp_path):
    whole = list(log_records(FILE))
    file = tmp_path / "cut.wandb"
    for size in (len(FILE.read_bytes()) - 1, 1000, PREFIX.size + 3):
        file.write_bytes(FILE.read_bytes()[:size])
        left_out = {}
        found = list(log_records(file, left_out))
        assert found == whole[: len(found)]
        assert len(found) < len(whole)
        assert left_out == {DAMAGED: 1}


def test_a_flipped_bit_ends_the_run_there(tmp_path):
    data = bytearray(FILE.read_bytes())
    data[1500] ^= 1
    (tmp_path / "flipped.wandb").write_bytes(data)
    left_out = {}
    assert 0 < len(list(log_records(tmp_path / "flipped.wandb", left_out))) < len(list(log_records(FILE)))
    assert left_out == {DAMAGED: 1}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"folder with \.wandb files"):
        find_wandb(tmp_path)
    (tmp_path / "run-x.wandb").write_bytes(b"something else")
    with pytest.raises(StoreError, match="that is none"):
        find_wandb(tmp_path)
