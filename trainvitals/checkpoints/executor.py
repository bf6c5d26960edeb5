"""Who does the work: a pool of processes on this machine, this process, or any `concurrent.futures.Executor`.

Workers of the pool are started anew (spawn), compute on one thread each, and end when this process does.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from typing import Any

import psutil

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.jobs import Answer, Job, Lane, run
from trainvitals.checkpoints.plan import SealedPlan

RETRIES = 2  # of a job whose worker was lost; what is wrong with a checkpoint is not tried again
_BASE_BYTES = 500 * 2**20  # of a Python process with torch
_CHECKPOINTS_HELD = 5  # by a worker at most: three checkpoints, the model, and what a pass through it holds
_ORPHAN_SECONDS = 1.0

Running = dict[Future[Answer], tuple[Lane, Job, Executor]]


class ThisProcess(Executor):
    """Does what it is given at once, here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function and return its finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def num_workers_for(checkpoint_bytes: int, num_jobs: int) -> int:
    """Return how many processes the cores and the free memory of this machine carry, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    each = _BASE_BYTES + _CHECKPOINTS_HELD * checkpoint_bytes
    return max(1, min(cores, int(psutil.virtual_memory().available // each), num_jobs))


def local_pool(num_workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes on this machine."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    """Set a worker up: Ctrl-C is for the parent, and without the parent there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


def dask_executor(address: str) -> tuple[Executor, Callable[[], None]]:
    """Return an executor on a Dask cluster, and what lets the cluster go.

    Raises:
        CheckpointError: if the package is not installed or the scheduler does not answer.
    """
    if importlib.util.find_spec("distributed") is None:
        raise CheckpointError(
            f"expected the package dask.distributed for the scheduler {address!r}, got none installed in "
            "trainvitals.analyze; pip install 'trainvitals[dask]', or leave the scheduler out"
        )
    distributed = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, set_as_default=False, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise CheckpointError(
            f"expected a Dask scheduler at {address!r}, got {type(error).__name__}: {error} in trainvitals.analyze; "
            "start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
        ) from error
    return client.get_executor(pure=False, retries=RETRIES), client.close


class Dispatcher:
    """Feeds lanes of jobs to an executor and hands their answers on, in this thread.

    Args:
        make_executor: makes the executor, and makes it anew if it breaks and is ours.
        num_workers: how many jobs are sent at a time: no more, so that those in order never wait behind others.
        is_ours: whether it may be made anew, and is shut down at the end.
    """

    def __init__(
        self, plan: SealedPlan, make_executor: Callable[[], Executor], num_workers: int, *, is_ours: bool
    ) -> None:
        self._plan = plan
        self._make = make_executor
        self._executor = make_executor()
        self._is_ours = is_ours
        self._most = 1 if isinstance(self._executor, ThisProcess) else num_workers

    def run(self, lanes: Sequence[Lane]) -> None:
        """Do all jobs of all lanes. An interrupt cancels what has not begun and passes through."""
        running: Running = {}
        try:
            self._fill(lanes, running)
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    lane, job, executor = running.pop(future)
                    lane.num_running -= 1
                    self._hand_on(future, lane, job, executor)
                self._fill(lanes, running)
        finally:
            self._end(running)

    def _fill(self, lanes: Sequence[Lane], running: Running) -> None:
        """Send jobs: those in order first, for what waits on them is the longest."""
        for lane in sorted(lanes, key=lambda lane: not lane.is_ordered):
            while len(running) < self._most and (job := lane.next()) is not None:
                lane.num_running += 1
                running[self._submit(job)] = (lane, job, self._executor)

    def _submit(self, job: Job) -> Future[Answer]:
        job.num_tries += 1
        try:
            return self._executor.submit(run, self._plan, job.work())
        except BrokenExecutor as error:
            lost: Future[Answer] = Future()
            lost.set_exception(error)
            return lost

    def _hand_on(self, future: Future[Answer], lane: Lane, job: Job, executor: Executor) -> None:
        error = future.exception()
        if error is None:
            job.done(future.result())
            return
        if isinstance(error, BrokenExecutor) and self._is_ours and executor is self._executor:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._make()
        if job.num_tries <= RETRIES:
            lane.jobs.appendleft(job)
            return
        job.done(Answer(problem=(
            f"expected a worker to finish, got {type(error).__name__}: {error} {job.num_tries} times for {job.label} "
            "in trainvitals.analyze; if it was killed for want of memory, pass fewer workers; a script must call "
            "analyze under `if __name__ == '__main__':`"
        )))  # fmt: skip

    def _end(self, running: Running) -> None:
        for future in running:
            future.cancel()
        if self._is_ours:
            processes = list((getattr(self._executor, "_processes", None) or {}).values())
            self._executor.shutdown(wait=not running, cancel_futures=True)
            for process in processes if running else ():  # interrupted: nobody waits for them
                process.terminate()
