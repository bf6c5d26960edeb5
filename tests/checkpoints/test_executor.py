"""Who does the work: processes by cores and memory, retries, a Dask cluster."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Executor, Future

import psutil
import pytest
from checkpoints import live_training as live

import trainvitals as tv
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.executor import RETRIES, Dispatcher, num_workers_for
from trainvitals.checkpoints.jobs import Answer, Job, Lane
from trainvitals.checkpoints.plan import SealedPlan


class Scripted(Executor):
    """Fails as often as it is told to, then answers."""

    def __init__(self, num_failures: int) -> None:
        self.num_failures, self.submitted = num_failures, []

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        self.submitted.append(args[-1])
        if self.num_failures:
            self.num_failures -= 1
            future.set_exception(OSError("connection lost"))
        else:
            future.set_result(Answer(result=args[-1]))
        return future


def jobs(answers: list, num: int) -> deque[Job]:
    return deque(Job(str(i), lambda i=i: i, answers.append) for i in range(num))


@pytest.mark.parametrize("num_failures", [0, RETRIES, RETRIES + 1])
def test_a_job_whose_worker_is_lost_is_tried_again_and_then_given_up(num_failures):
    executor, answers = Scripted(num_failures), []
    Dispatcher(SealedPlan(b"", ()), lambda: executor, 1, is_ours=False).run([Lane(jobs(answers, 1), is_ordered=True)])
    (answer,) = answers
    if num_failures <= RETRIES:
        assert answer.result == 0
    else:
        assert "got OSError: connection lost 3 times" in answer.problem
    assert len(executor.submitted) == min(num_failures, RETRIES) + 1


def test_jobs_in_order_are_sent_one_by_one_and_first():
    executor, answers, beside = Scripted(0), [], []
    lanes = [Lane(jobs(beside, 3)), Lane(jobs(answers, 3), is_ordered=True)]
    Dispatcher(SealedPlan(b"", ()), lambda: executor, 2, is_ours=False).run(lanes)
    assert [a.result for a in answers] == [0, 1, 2]
    assert executor.submitted[0] == 0
    assert len(beside) == 3


def test_a_lane_waits_for_those_that_it_comes_after():
    order: list[str] = []
    first = Lane(deque([Job("a", lambda: 1, lambda _: order.append("first")) for _ in range(3)]))
    second = Lane(deque([Job("b", lambda: 1, lambda _: order.append("second"))]), after=[first])
    Dispatcher(SealedPlan(b"", ()), lambda: Scripted(0), 4, is_ours=False).run([second, first])
    assert order == ["first"] * 3 + ["second"]


def test_processes_are_as_many_as_cores_memory_and_jobs_carry(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 10 * 2**30}))
    assert num_workers_for(0, 100) == cores
    assert num_workers_for(0, 1) == 1
    assert num_workers_for(2 * 2**30, 100) == 1  # ten GiB free, five times two each
    assert num_workers_for(100 * 2**30, 100) == 1


def test_a_scheduler_that_does_not_answer_is_our_error(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    few = live.train(tmp_path, ["loss.train"], 2)
    distributed = pytest.importorskip("distributed")

    def nobody(*_, **__):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", nobody)
    with pytest.raises(CheckpointError, match="expected a Dask scheduler at 'tcp://nobody:1', got OSError"):
        tv.analyze(few.folder, **few.arguments, what=["loss.train"], store=tmp_path, scheduler="tcp://nobody:1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the cluster's own
def test_a_dask_cluster_gives_identical_numbers(tmp_path):
    distributed = pytest.importorskip("distributed")
    what = ["loss.train", "overtraining", "hessian.top", "hessian.tracked", "cka", "oui"]
    few = live.train(tmp_path, what, 6)
    here = tv.analyze(few.folder, **few.arguments, what=what, store=tmp_path / "here", workers=2)
    with distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        there = tv.analyze(
            few.folder, **few.arguments, what=what, store=tmp_path / "there", scheduler=cluster.scheduler_address
        )
    assert here.names() == there.names()
    for name in here.names():
        left, right = (run.series(name)[["step", "key", "value"]] for run in (here, there))
        assert left.equals(right), name
    live.assert_same_numbers(tv.open_run(few.run), there, 1e-6)
