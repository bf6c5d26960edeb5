"""What the network can do now: accuracy and loss beside their best, held-out where that was measured."""

import pytest

from trainvitals.run import open_run
from trainvitals.schema import Record, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views.outcome import outcome
from trainvitals.views.run_view import RunView


def said(tmp_path, **series):
    writer = RunWriter.create(tmp_path, "r", {}, {})
    for i in range(3):
        numbers = {name.replace("_", "."): values[i] for name, values in series.items()}
        writer.append(Record(10 * i, 1e9 + i, scalars=numbers))
    writer.close(Status.FINISHED)
    with open_run(writer.path) as run:
        return outcome(RunView(run))


@pytest.mark.parametrize(("series", "sentence"), [
    ({"loss_heldout": [2.0, 0.13, 2.33], "accuracy_heldout": [0.1, 0.96, 0.15], "loss_train": [2.0, 0.1, 0.1]},
     "Held-out accuracy 15 % at step 20, 96 % at its best, at step 10; held-out loss 2.33 at step 20, 0.13 at its "
     "best, at step 10."),
    ({"accuracy_heldout": [0.1, 0.9, 0.995]}, "Held-out accuracy 99.5 % at step 20, its best so far."),
    ({"loss_train": [2.0, 1.0, float("nan")]}, "Train loss 1 at step 10, its best so far."),
    ({"mine": [1.0, 2.0, 3.0]}, ""),
], ids=["lost", "still at its best", "regression on train data", "neither"])  # fmt: skip
def test_the_outcome_is_given_beside_its_best(tmp_path, series, sentence):
    assert said(tmp_path, **series) == sentence
