"""Loss spikes: the loss leaps up and comes back, once or again and again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.loss_course import loss_course
from trainvitals.verdicts.rate_leap import rate_around
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Ints, Series
from trainvitals.verdicts.sign import ABOVE, LOSS_LEAPT, LOSS_LOST, Sign
from trainvitals.verdicts.spikes import WINDOW, Spike, batches, find_spikes
from trainvitals.verdicts.weigh import weigh

_CHOWDHERY = "Chowdhery et al. 2023, PaLM: Scaling Language Modeling with Pathways, section 5.1"
_NAMED = 5  # spikes whose steps are named
_FORGOTTEN = 0.25  # of the run so far: spikes of its first quarter
_IGLEWICZ = "Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers (robust deviations)"


class LossSpikes(Condition):
    """The train loss has leapt far beyond its own noise and recovered."""

    id = "loss_spikes"
    title = "Loss spikes"
    says = "Single steps throw the model off and it finds back: time is lost, and one day it may not find back."
    symptoms = (LOSS_LEAPT, LOSS_LOST)
    reads = ("loss.train", "the loss that you log")
    source = _CHOWDHERY
    follows = ("step_too_large", "attention_logit_growth")
    advice = (
        Advice("Look at the batches before the spikes; skip them if the spikes come from data.", _CHOWDHERY),
        Advice("Clip the gradient norm.", "Pascanu, Mikolov, Bengio 2013, On the difficulty of training RNNs"),
        Advice("With Adam, lower β₂ or raise ε: its averages lag behind sudden gradients.",
               "Molybog et al. 2023, A Theory on Adam Instability in Large-Scale Machine Learning"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` for one or two spikes in the last three quarters of the run, `alarm` for more."""
        course = loss_course(run, WINDOW)
        loss, spikes = _with_most_spikes(run, course.reference)
        count = _count(loss.name, run.series(loss.name).step, spikes)
        what = "spikes in the last three quarters of the run"
        one = Sign(count, 0.5, ABOVE, _IGLEWICZ, "it has spiked {value} times", patience=1, reliability=0.7,
                   quantity=what, repeats=True, symptom=LOSS_LEAPT)
        again = "it spikes again and again"
        more = Sign(count, 2.5, ABOVE, _IGLEWICZ, again, patience=1, reliability=0.7, quantity=what, repeats=True)
        found = weigh([one, more], watch=1, alarm=2, leading=[one])
        if not found.holding:
            return found.judgement(f"No spike stands out from the noise of {loss.name}", "The loss has no spikes")
        since = _first(spikes, count)
        told = [s for s in spikes if s.step >= since]
        judgement = found.judgement(_told(loss.name, told), "")
        return replace(judgement, since=since, advice=(_look(told, run.every_point(loss.name), run), *self.advice[1:]))


def _look(recent: list[Spike], loss: Series, run: RunFacts) -> Advice:
    """Return the first advice: the steps to look at, or the learning rate where that leapt."""
    if len(recent) == 1:
        step = recent[0].step
        rate = rate_around(run, step)
        if rate is not None and rate.has_leapt:
            return Advice(f"Look at the schedule: the learning rate leapt {rate}.", _CHOWDHERY)
        where = batches(int(loss.step[loss.step < step][-1]), step)
    else:
        named = ", ".join(f"{spike.step:,}" for spike in recent[:_NAMED]) + (", …" if len(recent) > _NAMED else "")
        where = f"the batches just before the leaps, at steps {named}"
    return Advice(f"Look at {where}; skip such batches if the spikes come from the data.", _CHOWDHERY)


def _told(name: str, recent: list[Spike]) -> str:
    """Return in words when it spiked, and how high."""
    highest = max(recent, key=lambda s: s.height)
    high = f"to {figure(highest.height)} times its level before"
    if len(recent) == 1:
        return f"{name} leapt up once, at step {highest.step:,}, {high}, and was on its way down by step " \
               f"{highest.recovered:,}"
    between = f"between steps {recent[0].step:,} and {recent[-1].step:,}"
    return f"{name} leapt up {len(recent)} times {between}, and came down each time; the highest went {high} at " \
           f"step {highest.step:,}"


def _with_most_spikes(run: RunFacts, reference: float) -> tuple[Series, list[Spike]]:
    """Return the loss, of the fixed probe or logged by the user, that shows most spikes, and those."""
    probe = run.every_point("loss.train")
    found = [(probe, find_spikes(probe, reference))]
    for logged in map(run.every_point, run.logged_losses):
        if len(logged) >= WINDOW and np.all(logged.value >= 0):
            found.append((logged, find_spikes(logged, reference, is_batch=True)))
    return max(found, key=lambda pair: len(pair[1]))


def _count(name: str, step: Ints, spikes: list[Spike]) -> Series:
    """Return at each step how many spikes have recovered that began in the last three quarters of the run so far."""
    begun = np.array([s.step for s in spikes], np.int64)
    back = np.array([s.recovered for s in spikes], np.int64)
    known = np.searchsorted(np.sort(back), step, side="right")
    old = np.searchsorted(begun, (_FORGOTTEN * step).astype(np.int64), side="right")
    return Series(name, step, np.maximum(known - old, 0).astype(np.float64))


def _first(spikes: list[Spike], count: Series) -> int:
    """Return the step of the first spike of the present series of them: without a time in between that forgot all."""
    quiet = count.step[count.value == 0]
    since = int(quiet[quiet < spikes[-1].step][-1]) if len(quiet[quiet < spikes[-1].step]) else -1
    return next(s.step for s in spikes if s.recovered > since)
