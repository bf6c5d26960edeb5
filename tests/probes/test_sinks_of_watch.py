"""Sinks of a watched run: they get what the run records, and never hold it up."""

import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.integrations.sink import Sink


class Kept(Sink):
    def __init__(self, broken=False):
        self.numbers, self.broken, self.is_closed = {}, broken, False

    def write(self, step, numbers):
        if self.broken:
            raise ConnectionError("gone")
        self.numbers.setdefault(step, {}).update(numbers)

    def close(self):
        self.is_closed = True


def train(folder, *sinks):
    torch.manual_seed(0)
    x, y, model = torch.randn(30, 4), torch.arange(30) % 3, nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=folder, every=2, sinks=sinks) as run:
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            run.log(mine=loss)
    return tv.open_run(run.path)


def test_a_sink_gets_what_the_run_records(tmp_path):
    kept = Kept()
    run = train(tmp_path, kept)
    assert kept.is_closed
    for name in ("loss.train", "mine", "probe.seconds"):
        points = run.series(name)
        assert [kept.numbers[s][name] for s in points["step"]] == points["value"].tolist()
    assert {"weights.norm.value/weight", "weights.norm.value/bias"} <= set(kept.numbers[2])


def test_a_loss_that_still_has_its_graph_is_logged(tmp_path):
    assert train(tmp_path).series("mine")["step"].tolist() == [1, 2, 3, 4]


def test_a_sink_that_fails_is_one_warning_and_the_run_is_whole(tmp_path, recwarn):
    run = train(tmp_path, Kept(broken=True))
    assert sum("ConnectionError: gone" in str(w.message) for w in recwarn) == 1
    assert run.series("loss.train")["step"].tolist() == [0, 2, 4]
    assert "gone" in run.events()["message"].to_list()[0]
