"""`watch(..., resume=RUN)`: the step axis goes on, and the seam is marked."""

import pytest
import torch

import trainvitals as tv
from trainvitals.schema import Status
from trainvitals.store.errors import StoreError


def train(store, num_steps, **options):
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(2, 1), torch.randn(8, 2), torch.randn(8, 1)
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.01), torch.nn.functional.mse_loss
    with tv.watch(model, optimizer, loss=loss, train=(x, y), store=store, every=10, probes=["loss"], inputs=False,
                  **options) as run:  # fmt: skip
        for _ in range(num_steps):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            run.log(mine=float(run.step))
        run.tag(f"part of {num_steps}")
    return run


def test_steps_go_on_and_the_seam_is_an_event(tmp_path):
    first = train(tmp_path, 25, name="digits", config={"lr": 1})
    second = train(tmp_path, 30, resume=first.id, config={"lr": 2})
    assert (second.id, second.step, second.name) == (first.id, 55, "digits")
    assert len(tv.list_runs(tmp_path)) == 1
    run = tv.open_run(first.id, tmp_path)
    assert run.series("mine")["step"].tolist() == list(range(1, 56))
    assert run.series("loss.train")["step"].tolist() == [0, 10, 20, 30, 40, 50]
    events = run.events()
    (seam,) = events[events["kind"] == "resumed"].itertuples()
    assert seam.step == 25
    assert "goes on at step 25 after a part that was finished at step 25" in seam.message
    assert run.status == Status.FINISHED
    assert run.tags == ("part of 25", "part of 30")
    assert run.meta["config"] == {"lr": 1}
    (part,) = run.meta["parts"]
    assert (part["step"], part["config"]) == (25, {"lr": 2})


@pytest.mark.parametrize("how", ["path", "name", "latest", "run"])
def test_a_run_is_found_by_path_name_latest_or_as_a_run(tmp_path, how):
    first = train(tmp_path, 12, name="digits")
    wanted = {"path": first.path, "name": "digits", "latest": "latest", "run": tv.open_run(first.path)}[how]
    assert train(tmp_path, 3, resume=wanted).step == 15


def test_training_may_go_back_to_a_checkpoint(tmp_path):
    first = train(tmp_path, 25)
    assert train(tmp_path, 5, resume=first.id, resume_step=20).step == 25
    run = tv.open_run(first.id, tmp_path)
    assert run.series("mine", start=21)["value"].tolist() == [21, 21, 22, 22, 23, 23, 24, 24, 25, 25]


def test_a_run_that_is_not_there_or_goes_on_is_refused_before_training(tmp_path):
    with pytest.raises(StoreError, match=r"got 'nobody' in .* in watch\(resume=...\); no readable run is there"):
        train(tmp_path, 1, resume="nobody")
    with pytest.raises(StoreError, match="expected resume_step together with resume, got 3 alone"):
        train(tmp_path, 1, resume_step=3)
    torch.manual_seed(0)
    model, x = torch.nn.Linear(2, 1), torch.randn(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = torch.nn.functional.mse_loss
    with tv.watch(model, optimizer, loss=loss, train=(x, x[:, :1]), store=tmp_path, probes=["loss"]) as live:
        with pytest.raises(StoreError, match="expected a run that nobody writes"):
            train(tmp_path, 1, resume=live.id)
