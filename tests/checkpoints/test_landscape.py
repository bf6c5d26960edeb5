"""A landscape in the background is that of the foreground, and training beside it does not see it."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from cases import CASES
from torch import nn

import trainvitals as tv
from trainvitals.checkpoints import landscape
from trainvitals.checkpoints.landscape import landscape_in_background

CASE = {case.name: case for case in CASES}
LONG = {"dimensions": 2, "num_points": 301}


def started(built, **changes):
    return landscape_in_background(built.model, **{"loss": built.loss, "batch": built.batches, **changes})


def foreground(built, options, **changes):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what={"landscape": options}, **changes)[
        "landscape"
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_it_gives_the_numbers_of_the_foreground(case):
    built, options = case.build(), {"directions": "eigenvectors", "num_points": 5}
    job = started(built, options=options, seed=3)
    found, expected = job.result(120), foreground(built, options, seed=3)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-8)
    assert found.keys == expected.keys
    assert job.progress == 1.0
    assert job.is_done
    assert job.result() is found


def train(model, steps=20):
    x, y = CASE["cnn_batchnorm"].build().batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        noise = 0.1 * torch.randn(x.shape, dtype=x.dtype)  # from the global generator
        nn.functional.cross_entropy(model(x + noise), y).backward()
        optimizer.step()


def test_training_goes_on_as_if_it_were_not_there_and_it_sees_the_model_as_it_was():
    alone, beside = (CASE["cnn_batchnorm"].build() for _ in range(2))
    expected = foreground(beside, {"num_points": 101})
    torch.manual_seed(0)
    train(alone.model)
    torch.manual_seed(0)
    job = started(beside, options={"num_points": 101})
    train(beside.model)
    assert all(torch.equal(a, b) for a, b in zip(alone.model.state_dict().values(), beside.model.state_dict().values(),
                                                  strict=True))  # fmt: skip
    np.testing.assert_allclose(job.result(120).value, expected.value, rtol=1e-8)


def test_losses_and_models_that_cannot_be_pickled_work():
    built = CASE["mlp"].build()
    built.model.add_module("odd", nn.Identity())
    built.model.odd.function = lambda z: z
    found = started(built, loss=lambda z, y: built.loss(z, y), options={"num_points": 3}).result(120)
    np.testing.assert_allclose(found.value, foreground(built, {"num_points": 3}).value, rtol=1e-8)


def test_progress_rises_while_one_waits():
    heard = []
    started(CASE["mlp"].build(), options={"dimensions": 2}).result(120, lambda *words: heard.append(words))
    assert heard[-1] == ("landscape", 441, 441)
    done = [words[1] for words in heard]
    assert done == sorted(set(done))


def test_it_is_written_as_a_run_on_request(tmp_path):
    job = started(CASE["mlp"].build(), options={"num_points": 5}, store=tmp_path, name="slice", step=70)
    found = job.result(120)
    with tv.open_run("slice", tmp_path) as run:
        table = run.landscapes()
        assert str(run.status) == "finished"
    assert table.step.tolist() == [70]
    np.testing.assert_array_equal(table.losses[0], found.value)


def test_it_is_not_ready_before_its_time_and_can_be_cancelled():
    job = started(CASE["mlp"].build(), options=LONG)
    with pytest.raises(TimeoutError, match="wait longer"):
        job.result(0.2)
    assert not job.is_done
    job.cancel()
    assert job.is_done
    with pytest.raises(RuntimeError, match="exit code -15"):
        job.result(5)


def test_a_killed_process_says_so():
    job = started(CASE["mlp"].build(), options=LONG)
    os.kill(job._process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exit code -9"):
        job.result(20)


def test_what_fails_in_the_process_comes_back_in_words():
    built = CASE["mlp"].build()
    with pytest.raises(RuntimeError, match="expected a train batch"):
        started(built, batch=(torch.zeros(3, 99), torch.zeros(3))).result(60)


def test_what_is_undefined_is_a_reading_with_the_reason():
    found = started(CASE["mlp"].build(), options={"directions": "update"}).result(60)
    assert "successive training steps" in found.missing


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("no copies of me")


def test_what_cannot_start_is_told_at_once():
    built = CASE["mlp"].build()
    with pytest.raises(ValueError, match="did you mean num_points"):
        started(built, options={"num_pints": 3})
    with pytest.raises(ValueError, match="no copies of me"):
        landscape_in_background(Uncopied(2, 1), loss=nn.functional.mse_loss, batch=(torch.eye(2), torch.zeros(2, 1)))


@pytest.mark.slow
def test_where_it_cannot_be_forked_it_is_spawned(monkeypatch):
    monkeypatch.setattr(landscape.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    built = CASE["uneven"].build()
    found = started(built, options={"num_points": 3}).result(120)
    np.testing.assert_allclose(found.value, foreground(built, {"num_points": 3}).value, rtol=1e-8)
    with pytest.raises(ValueError, match="that can be pickled"):
        started(built, loss=lambda z, y: built.loss(z, y))


def test_starting_it_takes_a_fraction_of_a_second():
    built = CASE["mlp"].build()
    began = time.perf_counter()
    job = started(built, options=LONG)
    assert time.perf_counter() - began < 2
    job.cancel()
