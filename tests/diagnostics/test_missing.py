"""The reason of an undefined number reaches the reader as it was given."""

import torch
import torch.nn.functional as F

import trainvitals as tv
from trainvitals.diagnostics import base, evaluation, missing


def test_it_is_one_class_wherever_it_is_imported_from():
    assert base.Missing is evaluation.Missing is missing.Missing
    assert str(missing.Missing("only one class")) == "only one class"


def test_a_reading_carries_the_reason_word_for_word():
    model, batch = torch.nn.Linear(3, 2), (torch.ones(4, 3), torch.zeros(4).long())
    reading = tv.measure(model, loss=F.cross_entropy, batch=batch, what=["nc1"])["nc1"]
    assert (reading.value, reading.missing) == (None, "only one class in the probe batch")
