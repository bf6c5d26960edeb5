"""The budget by a simulated clock: within the share, by value for cost, none starved, no flicker, changes followed."""

import pytest
from simulation import DEFAULT, SHARED, Metric, simulate

from trainvitals.probes.budget import Asked, Budget, parse_share

# Step and pass over the probe in seconds: a small dense net, two small CNNs, and large batches.
WORKLOADS = [(0.002, 0.0004), (0.01, 0.0006), (0.06, 0.0008), (0.5, 0.001)]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("step", "one_pass"), [WORKLOADS[1], WORKLOADS[3]])
def test_the_share_is_held_over_the_run_and_over_the_last_minute(share, step, one_pass):
    run = simulate(share, step, one_pass, seconds=180)
    assert run.share() <= share + 0.01
    assert run.share(run.seconds - 60) <= share + 0.01
    assert run.worst_minute() <= share + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("step", "one_pass"), WORKLOADS)
def test_the_share_is_held_for_five_minutes_on_steps_of_2_to_500_ms(share, step, one_pass):
    run = simulate(share, step, one_pass)
    assert run.share() <= share + 0.01
    assert run.worst_minute() <= share + 0.01
    if share == 0.01:
        assert run.share() >= 0.8 * share  # and what there is is used, where there is use for it
    if share == 0.05:
        assert min(len(run.measured[name]) for name in DEFAULT) >= 20


def test_at_five_percent_every_default_metric_has_twenty_points_in_five_minutes():
    for step, one_pass in WORKLOADS[2:]:
        run = simulate(0.05, step, one_pass)
        assert min(len(run.measured[name]) for name in DEFAULT) >= 20
        assert run.warning is None


def test_what_is_not_dear_is_measured_at_once_and_what_is_dear_in_the_first_steps():
    run = simulate(0.05, 0.06, 0.0008, seconds=10)
    assert all(run.measured[name][0] == 0.0 for name, metric in DEFAULT.items() if not metric.is_dear)
    assert all(run.measured[name][0] < 3.0 for name, metric in DEFAULT.items() if metric.is_dear)


def test_cheap_ones_come_often_and_dear_ones_seldom_by_the_square_root_of_the_price():
    metrics = {"cheap": Metric("a", 1.0, 1), "dear": Metric("b", 64.0, 1)}
    run = simulate(0.01, 0.01, 0.001, metrics, shared={"a": 0.0, "b": 0.0}, noise=0.0)
    ratio = len(run.measured["cheap"]) / len(run.measured["dear"])
    assert 8 / 2 <= ratio <= 8 * 2  # rounding to powers of two moves each by √2 at most


def test_what_changes_faster_is_measured_more_often():
    metrics = {"fast": Metric("a", 10.0, 1, change=1e-2), "slow": Metric("b", 10.0, 1, change=1e-3 / 2)}
    run = simulate(0.01, 0.01, 0.001, metrics, shared={"a": 0.0, "b": 0.0}, noise=0.0)
    ratio = len(run.measured["fast"]) / len(run.measured["slow"])
    assert 4 / 2.2 <= ratio <= 4 * 2.2  # the root of 16, where unlikeness ends; rounding moves each by √2


def test_those_that_share_a_pass_meet():
    metrics = {f"m{i}": Metric("forward", 0.01, 1) for i in range(5)}
    run = simulate(0.01, 0.01, 0.003, metrics, shared={"forward": 1.0}, noise=0.0)
    assert len({tuple(times) for times in run.measured.values()}) == 1


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_the_intervals_do_not_flicker(share):
    run = simulate(share, 0.06, 0.0008, noise=0.2)
    settled = [name for at, name in run.changes if at > 60]
    assert len(settled) <= len(DEFAULT)  # in four minutes less than one change each
    assert max((settled.count(name) for name in settled), default=0) <= 4


def test_training_that_slows_down_is_followed_within_a_minute():
    run = simulate(0.05, lambda now: 0.002 if now < 60 else 0.25, 0.0005, seconds=240)
    for name in DEFAULT:
        late = [at for at in run.measured[name] if at > 120]
        assert len(late) >= 120 / 12 / 2, name
    assert run.worst_minute() <= 0.06


def test_a_metric_that_grows_dearer_is_followed_within_a_minute():
    def pass_of(name, now):
        return 0.0008 * (8 if name.startswith("hessian") and now > 60 else 1)

    run = simulate(0.05, 0.06, pass_of, seconds=240)
    assert run.worst_minute() <= 0.06
    assert run.share(120) <= 0.055
    before = sum(at < 60 for at in run.measured["hessian.density"])
    assert sum(at > 180 for at in run.measured["hessian.density"]) < before


def test_an_interval_of_ones_own_is_never_undercut():
    run = simulate(0.5, 0.5, 0.0001, {"a": Metric("a", 1.0, 50)}, is_free=False, shared={"a": 0.0})
    assert len(run.measured["a"]) == (run.steps - 1) // 50 + 1
    shortened = simulate(0.5, 0.5, 0.0001, {"a": Metric("a", 1.0, 50)}, shared={"a": 0.0})
    assert len(shortened.measured["a"]) > 20


def test_a_budget_too_small_says_once_what_it_would_take():
    metrics = {"light": Metric("none", 1.0, 10), "spectrum": Metric("products", 1000.0, 100, True, guess=1000)}
    run = simulate(0.01, 0.1, 0.01, metrics, shared=dict.fromkeys(SHARED, 0.0), seconds=2500, noise=0.0)
    assert run.measured["spectrum"]
    assert run.warning is not None
    for part in ("got 1 %", "'spectrum' comes every", "give budget='21%'", "leave 'spectrum' out"):
        assert part in run.warning
    assert run.share() <= 0.02
    assert len(run.measured["light"]) > 100  # what can be paid goes on


def test_a_momentary_one_is_dropped_where_it_cannot_be_paid_and_never_comes_late():
    metrics = {"update": Metric("steps", 1.0, 20, is_momentary=True), "dear": Metric("b", 50.0, 10, True, guess=50)}
    run = simulate(0.02, 0.01, 0.002, metrics, shared={"steps": 0.0, "b": 0.0}, noise=0.0)
    assert len(run.measured["update"]) > 20


def test_prices_come_from_measuring_and_guesses_from_a_pass():
    dear = Asked("g", 10, num_passes=40.0, is_dear=True)
    budget = Budget(0.05, {"a": Asked("f", 10, num_passes=1.0), "b": dear}, 0.0)
    assert budget.chosen({"a", "b"}, 0.0) == ["a"]
    budget.pay({"a": 0.002}, {"f": 0.01}, 0.012, passed=0.01)
    assert budget.price("b") == pytest.approx(0.4)
    assert budget.chosen({"b"}, 0.1) == ["b"]
    budget.pay({"b": 0.1}, {"g": 0.0}, 0.3)
    assert budget.price("b") == pytest.approx(0.1)
    budget.pay({"b": 0.3}, {"g": 0.0}, 0.7)
    assert budget.price("b") == pytest.approx(0.2)


def test_a_guess_beyond_the_first_minutes_share_waits_until_it_has_been_saved():
    dear = Asked("g", 10, num_passes=100.0, num_shared=0.0, is_dear=True)
    budget = Budget(0.01, {"a": Asked("f", 10), "b": dear}, 0.0)
    budget.chosen({"a"}, 0.0)
    budget.pay({"a": 0.01}, {}, 0.01, passed=0.01)
    assert budget.chosen({"b"}, 30.0) == []  # 1 s; the first minute pays 0.6
    assert budget.chosen({"b"}, 90.0) == []
    assert budget.chosen({"b"}, 105.0) == ["b"]


@pytest.mark.parametrize("budget", ["5", "0%", -0.1, "much", 1.5, "150%", [1], True])
def test_what_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match="expected a share of wall time"):
        parse_share(budget)
