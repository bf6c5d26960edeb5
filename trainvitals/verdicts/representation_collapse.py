"""Representation collapse: the features lose their directions, and the classes are not told apart by what is left."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Series, cleaned
from trainvitals.verdicts.sign import ABOVE, BELOW, RANK_FELL, Sign
from trainvitals.verdicts.weigh import weigh

_PAPYAN = "Papyan, Han, Donoho 2020: C classes need C − 1 directions"
_GARRIDO = "Garrido et al. 2023, RankMe: Assessing the Downstream Performance of Representations by Their Rank"
_JING = "Jing et al. 2022, Understanding Dimensional Collapse in Contrastive Self-supervised Learning"
_BANK = "measured on the bank of labelled runs, setting half"
_FLAT = "the features are the same for every sample"  # as the metric says


class RepresentationCollapse(Condition):
    """The effective rank of the features has fallen below what the classes need, or to next to nothing."""

    id = "representation_collapse"
    title = "Representation collapse"
    says = "The last layer says nearly the same of every sample: what it does not tell apart, no classifier can."
    symptoms = (RANK_FELL,)
    rests_on = ("rank.effective",)
    reads = ("rank.effective", "chance.num_classes", "accuracy.train", "chance.accuracy", "nc1")
    source = _JING
    follows = ("step_too_large", "dead_units", "attention_logit_growth")
    advice = (
        Advice("If the loss blew up before, go back to a checkpoint from before and lower the learning rate; else "
               "lower the weight decay.", _JING),
        Advice("Without labels: keep the branches apart (stop-gradient, predictor) or add a variance term.",
               "Bardes, Ponce, LeCun 2022, VICReg: Variance-Invariance-Covariance Regularization"),
        Advice("Put a normalisation layer before the collapsed one.",
               "Daneshmand et al. 2020, Batch normalization provably avoids ranks collapse"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when the rank is too low and the classes are not told apart, or nearly nothing is left."""
        rank = _rank(run)
        if len(rank) < 3:
            raise Unmeasured(run.why_missing("rank.effective", len(rank), 3))
        classes, share = run.num_classes, rank.with_values(rank.value / np.maximum.accumulate(rank.value))
        needed = 0.5 * (classes - 1) if classes and classes > 4 else 1.5
        source = _PAPYAN if classes and classes > 4 else _BANK
        low = Sign(rank, needed, BELOW, source, "the effective rank of the features is {value}",
                   release=1.5 * needed, patience=2, reliability=0.7, starts="crossing", symptom=RANK_FELL)  # fmt: skip
        fallen = Sign(share, 0.15, BELOW, _GARRIDO, "{value:share} is left of the largest rank that they had",
                      release=0.25,
                      patience=2, reliability=0.6, quantity="effective rank over its largest")  # fmt: skip
        late = Sign(_late(rank), 0.6, BELOW, _BANK,
                    lambda at: _left(rank, at),
                    release=0.75, patience=2, reliability=0.6,
                    quantity="effective rank over that at a fifth of the run")  # fmt: skip
        mixed = _not_told_apart(run)
        against = [] if mixed is None else [Sign(
            run.series("accuracy.train"), 0.95, ABOVE, _PAPYAN, "the train accuracy is {value:share}", release=0.9,
            patience=2,
        )]  # fmt: skip
        against.append(Sign(
            rank.with_values(np.maximum.accumulate(rank.value)), 1.5 * needed, BELOW, _BANK,
            "their rank was never above {value}, as behind a bottleneck", patience=1,
        ))  # fmt: skip
        signs = [low, late, fallen, *([mixed] if mixed is not None else [])]
        leading = [low, late] if mixed is not None else [low]  # without labels a task may need fewer and fewer
        found = weigh(signs, watch=2, alarm=2, leading=leading, against=against)
        missing = () if mixed is not None else (run.why_missing("accuracy.train"),)
        return found.judgement(
            "The features have lost directions in which samples differ",
            f"The features vary in enough directions ({rank.last:.3g})", missing,
        )  # fmt: skip


def _rank(run: RunFacts) -> Series:
    """Return the effective rank; 1 where it is undefined because nothing varies any more."""
    raw = run.raw("rank.effective")
    flat = [step for step, reason in run.absences("rank.effective") if reason.startswith(_FLAT)]
    step = np.concatenate([raw.step, np.array(flat, np.int64)])
    value = np.concatenate([raw.value, np.ones(len(flat))])
    order = np.argsort(step, kind="stable")
    return cleaned("rank.effective", step[order], value[order])


def _late(rank: Series) -> Series:
    """Return the rank over that at a fifth of the run so far; the first five measurements settle."""
    index = np.arange(len(rank))
    return rank.with_values(rank.value / rank.value[np.minimum(np.maximum(index // 5, 5), index)])


def _left(rank: Series, at: int) -> str:
    then = min(max(at % len(rank) // 5, 5), at % len(rank))
    return (f"of the rank {figure(float(rank.value[then]))} that they had at step {rank.step[then]:,}, when a fifth of "
            "the run was over, {value:share} is left")  # fmt: skip


def _how_low(accuracy: Series, at: int, chance: float | None) -> str:
    """Return the train accuracy in words, beside its best so far and what guessing reaches."""
    best = f"{figure(float(accuracy.value[: at % len(accuracy) + 1].max()), 'share')} at its best"
    guess = "" if chance is None else f" and {figure(chance, 'share')} for guessing"
    return f"the train accuracy is {{value:share}}, after {best}{guess}"


def _not_told_apart(run: RunFacts) -> Sign | None:
    """Return the sign that the train accuracy is nearer to chance than to its best; None for no classifier."""
    accuracy, chance = run.series("accuracy.train"), run.chance_accuracy
    if not accuracy:
        return None
    middle = 0.5 * (1 + chance) if chance is not None else 0.5
    best = np.maximum.accumulate(running_median(accuracy.value, 3))
    level = np.maximum(middle, best - 0.2)
    return Sign(accuracy, level, BELOW, "half way from chance to 1, or a fifth below its best",
                lambda at: _how_low(accuracy, at, chance),
                release=level + 0.1, reliability=0.6)  # fmt: skip
