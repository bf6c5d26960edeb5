"""Neural collapse: the features of each class meet in one point, the points form a simplex. Worth knowing."""

from __future__ import annotations

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_PAPYAN = "Papyan, Han, Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training"
_BANK = "measured on the bank of labelled runs, setting half"


class NeuralCollapse(Condition):
    """The train data is fitted, and NC1 to NC4 together are small."""

    id = "neural_collapse"
    title = "Neural collapse"
    says = "The terminal phase: each class has become one point of a simplex, and more training only sharpens that."
    reads = ("accuracy.train", "nc1", "nc2.norms_means", "nc2.angles_means", "nc3", "nc4")
    source = _PAPYAN
    is_informational = True
    advice = (
        Advice("Nothing has to be done; training can end here if the held-out loss has stopped falling.", _PAPYAN),
        Advice("If the features are to be used for other tasks, take an earlier checkpoint.",
               "Kornblith et al. 2021, Why Do Better Loss Functions Lead to Less Transferable Features?"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when the data is fitted, NC1 is small, and most of the others agree."""
        first = run.need("nc1", 4)
        accuracy, terminal = run.need("accuracy.train", 4), f"{_PAPYAN}: the terminal phase begins at no train error"
        fitted = Sign(accuracy, 0.989, ABOVE, terminal, "the train data is fitted, with an accuracy of {value:share}",
                      release=0.97, reliability=0.3)
        unfitted = Sign(accuracy, 0.97, BELOW, terminal, "the train probe is not fitted", release=0.989)
        within = Sign(first, 0.1, BELOW, _BANK,
                      "the features scatter by {value} within a class, beside what lies between classes (NC1)",
                      release=0.15, reliability=0.7, starts="crossing")  # fmt: skip
        geometry = [
            Sign(run.series("nc2.norms_means"), 0.15, BELOW, _BANK,
                 "the class means lie equally far out, with a spread of {value} (NC2)",
                 release=0.2, reliability=0.4),
            Sign(run.series("nc2.angles_means"), 0.1, BELOW, _BANK,
                 "the class means form a simplex, with a deviation of {value} (NC2)",
                 release=0.15, reliability=0.6),
            Sign(run.series("nc3"), 0.3, BELOW, _BANK,
                 "the classifier's rows point to the class means, with a deviation of {value} (NC3)",
                 release=0.4, reliability=0.5),
            Sign(run.series("nc4"), 0.011, BELOW, _BANK,
                 "the nearest class mean decides otherwise for {value:share} of the samples (NC4)",
                 release=0.03, reliability=0.3),
        ]  # fmt: skip
        measured = [sign for sign in geometry if len(sign.series) >= 4]
        if len(measured) < 2:
            raise Unmeasured(*(run.why_missing(name) for name in self.reads[2:] if not run.series(name)))
        missing = [run.why_missing(name) for name in self.reads[2:] if not run.series(name)]
        needed = 2 + max(2, len(measured) - 1)
        found = weigh([within, fitted, *measured], watch=needed, alarm=99, leading=[within], against=[unfitted])
        return found.judgement(
            "The features have collapsed to one point a class", "The features have not collapsed", missing
        )
