"""What diagnostics remember survives a file, and the file can make nothing but what they remember."""

from __future__ import annotations

import copy
from collections import deque

import numpy as np
import pytest
import torch
from checkpoints import live_training as live
from checkpoints.saved import Malicious

from trainvitals.checkpoints import memory
from trainvitals.checkpoints.jobs import remembers
from trainvitals.diagnostics.registry import registered, select
from trainvitals.probes.measure import take_readings
from trainvitals.probes.subject import make_subject

REMEMBERING = sorted(name for name, cls in registered().items() if remembers(cls.configured({})))


def subject(step: int):
    torch.manual_seed(step)
    model, given = live.build_double(), live.probes()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * step * torch.randn_like(parameter)
    found = make_subject(
        model, loss=live.loss, forward=None, train=given["batch"], heldout=given["heldout"], call="test"
    )
    found.initial_parameters = found.weights_at_start()
    return found


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_diagnostic_goes_on_from_a_file_as_if_it_had_never_stopped(name, tmp_path):
    (whole,) = select([name])
    for step in (0, 1, 2):
        take_readings(subject(step), [whole], step=step)
    memory.save(tmp_path / "memory", {name: 2}, [whole])
    (restored,) = select([name])
    assert memory.restore(tmp_path / "memory", [restored]) == {name: 2}
    left, right = (take_readings(subject(3), [d], step=3) for d in (copy.deepcopy(whole), restored))
    for metric, reading in left.items():
        assert right[metric].missing == reading.missing
        if reading.value is not None:
            np.testing.assert_array_equal(right[metric].value, reading.value)


def test_numbers_of_numpy_do_not_cost_the_memory_of_the_others(tmp_path):
    whole, other = select(["overtraining", "spike"])
    whole._best_loss, whole._best_step, other._log_loss = np.float64(0.5), np.int64(3), 1.0
    memory.save(tmp_path / "memory", {"overtraining": 3, "spike": 3}, [whole, other])
    restored = select(["overtraining", "spike"])
    assert memory.restore(tmp_path / "memory", restored) == {"overtraining": 3, "spike": 3}
    assert (restored[0]._best_loss, restored[0]._best_step, restored[1]._log_loss) == (0.5, 3, 1.0)


def test_those_that_remember_are_told_by_their_fields():
    assert {"overtraining", "cka", "hessian.tracked", "growth_law", "forgetting", "spike"} <= set(REMEMBERING)
    assert not {"hessian.top", "oui", "grad.slow_share", "grad.noise_scale"} & set(REMEMBERING)
    assert remembers(select({"grad.noise_scale": {"ema_decay": 0.9}})[0])


def test_a_missing_a_cut_and_a_malicious_file_give_nothing_back(tmp_path):
    diagnostics = select(["overtraining", "cka"])
    assert memory.restore(tmp_path / "absent", diagnostics) == {}
    torch.save({"overtraining": Malicious(tmp_path / "executed")}, tmp_path / "evil")
    assert memory.restore(tmp_path / "evil", diagnostics) == {}
    assert not (tmp_path / "executed").exists()
    memory.save(tmp_path / "cut", {"overtraining": 1, "cka": 1}, diagnostics)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:200])
    assert memory.restore(tmp_path / "cut", diagnostics) == {}
    for kind in ("Diagnostic", "torch", "absent"):  # names of the module that are no dataclass of a diagnostic's
        entry = {"kind": "dataclass", "class": kind, "fields": {}}
        torch.save({"cka": {"step": 1, "fields": {"_first": entry, "_previous": None}}}, tmp_path / "odd")
        assert memory.restore(tmp_path / "odd", select(["cka"])) == {}


@pytest.mark.parametrize("value", [None, 3, [1, (2.0, "x")], {"a": {1, 2}, 3: frozenset({4})}, deque([1, 2], maxlen=5)])
def test_plain_values_come_back_as_they_were(value):
    (owner,) = select(["overtraining"])
    back = memory._decoded(memory._encoded(value), owner)
    assert back == value
    assert type(back) is type(value)
    assert getattr(back, "maxlen", None) == getattr(value, "maxlen", None)
