"""The budget: within the share, cheap ones often, dear ones seldom, none starved."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainvitals as tv
from trainvitals.probes.budget import Budget, parse_share


def simulate(share, prices, num_steps=20_000, step_seconds=0.01, intervals=None):
    """Run a clock of our own: each step takes its time, each measurement its price."""
    now, spent, counts = 0.0, 0.0, dict.fromkeys(prices, 0)
    budget = Budget(share, {name: name for name in prices}, now)
    for step in range(num_steps):
        due = [name for name in prices if step % (intervals or {}).get(name, 1) == 0]
        taken = budget.chosen(due, now)
        cost = {name: prices[name] for name in taken}
        budget.pay(cost)
        for name in taken:
            counts[name] += 1
        spent += sum(cost.values())
        now += sum(cost.values()) + step_seconds
    return spent / now, counts


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 1.0])
def test_the_share_is_kept_and_used(share):
    prices = {"cheap": 0.0005, "dear": 0.4, "dearer": 2.0}
    spent, _ = simulate(share, prices, num_steps=50_000)
    owed = sum(prices.values()) / 500  # at most one measurement of each is paid afterwards, or saved for
    assert share - owed <= spent <= share + owed or (share == 1.0 and spent > 0.9)


def test_each_gets_its_part_of_the_time_so_cheap_ones_are_frequent():
    _, counts = simulate(0.05, {"cheap": 0.004, "dear": 0.4})
    assert counts["cheap"] / counts["dear"] == pytest.approx(100, rel=0.15)


def test_what_is_not_spent_goes_to_those_who_wait():
    _, counts = simulate(0.05, {"cheap": 1e-6, "dear": 0.4})
    seconds = 20_000 * 0.01 / 0.95
    assert counts["cheap"] == 20_000  # whenever it is due
    assert counts["dear"] * 0.4 / seconds == pytest.approx(0.05, rel=0.1)  # nearly all the money


def test_nothing_is_measured_more_often_than_it_is_due():
    spent, counts = simulate(0.5, {"a": 1e-4, "b": 1e-4}, num_steps=1000, intervals={"a": 10, "b": 100})
    assert counts == {"a": 100, "b": 10}
    assert spent < 0.01


def test_what_waits_is_taken_later_and_what_is_momentary_is_dropped():
    budget = Budget(0.1, {"wait": "a", "drop": "b"}, now=0.0)
    assert budget.chosen(["wait", "drop"], 0.0) == ["wait", "drop"]
    budget.pay({"wait": 1.0, "drop": 1.0})
    assert budget.chosen(["wait", "drop"], 1.0, momentary=frozenset(["drop"])) == []
    assert budget.chosen([], 100.0) == ["wait"]


def test_what_shares_its_work_is_measured_together():
    budget = Budget(0.1, {"top": "products", "bottom": "products", "loss": "forward"}, now=0.0)
    assert budget.chosen(["top", "bottom", "loss"], 0.0) == ["top", "bottom", "loss"]
    budget.pay({"top": 2.0, "bottom": 0.0, "loss": 0.01})  # the shared run is on the first one's bill
    now, taken = 0.0, []
    while not {"top", "bottom"} & set(taken):
        now += 0.1
        taken = budget.chosen(["top", "bottom"], now)
        budget.pay(dict.fromkeys(taken, 0.01))
    assert {"top", "bottom"} <= set(taken)
    assert now == pytest.approx(40, rel=0.1)  # 2 s owed and 2 s to come, at a tenth of the time


@pytest.mark.parametrize("budget", ["5", "0%", -0.1, "much", 1.5, "150%", [1], True])
def test_what_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match="expected a share of wall time"):
        parse_share(budget)


def watched(tmp_path, **options):
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(60, 4), torch.arange(60) % 3
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=tmp_path, **options) as run:
        started = time.perf_counter()
        while time.perf_counter() - started < 1.5:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return tv.open_run(run.id, store=tmp_path)


def test_a_watched_run_defers_what_it_cannot_pay_and_says_what_it_spent(tmp_path):
    with watched(tmp_path, probes=["loss.train", "hessian.top"], budget="30%") as run:
        assert run.meta["budget"] == 0.3
        losses, spectra = len(run.series("loss.train")), run.series("hessian.top")["step"].nunique()
        interval_points = run.last_step // 50
        assert spectra < run.last_step // 100  # due that often, not paid that often
        assert 1 < spectra < losses <= interval_points + 2
        assert 0 < run.series("probe.share")["value"].iloc[-1] < 1


def test_a_schedule_of_ones_own_is_followed_exactly(tmp_path):
    with watched(tmp_path, probes=["hessian.top"], every=200) as run:
        assert run.meta["budget"] is None
        assert run.series("hessian.top")["step"].unique().tolist() == list(range(0, run.last_step + 1, 200))


def test_copies_for_trajectories_are_made_only_where_they_can_be_paid_and_are_charged(tmp_path):
    with watched(tmp_path, probes=["grad.successive", "hessian.top"], budget="1%") as run:
        points = run.series("grad.successive.update")["step"]
        assert 0 < len(points) < run.last_step // 20  # due every 20 steps
        assert run.missing("grad.successive.update")["step"].tolist() == [0]  # never measured without its copies


def test_what_is_dear_in_a_preset_is_paced_and_the_rest_follows_the_schedule(tmp_path):
    with watched(tmp_path, probes="default", every=20) as run:
        due = list(range(0, run.last_step + 1, 20))
        assert run.meta["budget"] == 0.05
        assert run.series("loss.train")["step"].tolist() == due
        assert run.series("weights.norm.value")["step"].unique().tolist() == due
        assert 1 <= run.series("hessian.top")["step"].nunique() < len(due)


def test_without_a_budget_all_of_a_preset_follows_the_schedule(tmp_path):
    with watched(tmp_path, probes="default", every=2000, budget=None) as run:
        due = list(range(0, run.last_step + 1, 2000))
        assert run.meta["budget"] is None
        assert run.series("hessian.top")["step"].unique().tolist() == due
        assert run.series("grad.coherence")["step"].tolist() == due
