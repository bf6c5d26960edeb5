"""How the signal fares on its way through the network: its size in each block, and what each branch adds to it.

Blocks are modules numbered in a `Sequential` or a `ModuleList` (the outermost such), as residual networks and
transformers have them; without any, all layers with weights of their own.

Legend: L blocks, R rows (samples × positions), D channels of a block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.signal_sums import SignalSums
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

_SOURCE = (
    "Brock, De, Smith 2021, Characterizing signal propagation to close the performance gap in unnormalized ResNets, "
    "section 3 (signal propagation plots)"
)


@dataclass
class SignalProfile(Diagnostic):
    """Size of each block's output: squared mean and variance of channels, and root mean square.

    Each part is (L,) ≥ 0 in the order of the forward pass, exact on the probe: `mean_square` is the mean over channels
    of their squared mean, `variance` the mean over channels of their variance over samples and positions, and
    rms² = mean_square + variance. In a residual stream the variance grows from block to block; a squared mean that
    grows beside it is a shift that all samples share. Padding counts. Details: `left_out`, blocks without a value and
    why. No options.
    """

    name = "signal.profile"
    title = "Size of the signal by block"
    question = Question.STABILITY
    summary = "How large the signal is after each block, and how much of it all samples share."
    formula = r"\operatorname{mean}_c(\operatorname{mean}_r x_{rc})^2,\ \operatorname{mean}_c \operatorname{Var}_r x_c"
    undefined = "No block whose output has a row for each sample; a block whose output holds NaN or Inf."
    source = _SOURCE
    needs = Needs.SIGNALS
    tier = Tier.FULL
    interval = 100
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "block"
    parts = {
        "mean_square": Part(
            "Squared mean of channels by block", "How much of each block's output all samples share.",
            formula=r"\operatorname{mean}_c (\operatorname{mean}_r x_{rc})^2",
        ),
        "variance": Part(
            "Variance of channels by block", "How much each block's output varies between samples and positions.",
            formula=r"\operatorname{mean}_c \operatorname{Var}_r x_{rc}",
        ),
        "rms": Part(
            "Root mean square by block", "How large each block's output is.",
            formula=r"\sqrt{\operatorname{mean}_{rc} x_{rc}^2}",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the three numbers of each block."""
        signals = snapshot.signals
        return {
            "mean_square": or_missing(lambda: _by_block(signals, SignalSums.mean_square)),
            "variance": or_missing(lambda: _by_block(signals, SignalSums.variance)),
            "rms": or_missing(lambda: _by_block(signals, SignalSums.rms)),
        }


def _by_block(signals: Mapping[str, SignalSums], number: Callable[[SignalSums], float]) -> Reading:
    finite = {name: sums for name, sums in signals.items() if sums.squares.isfinite().all()}
    left_out = {name: "its output holds NaN or Inf" for name in signals if name not in finite}
    return by_layer({name: number(sums) for name, sums in finite.items()}, left_out, "no block was seen")


@dataclass
class ResidualShare(Diagnostic):
    """Size of what each residual branch adds beside the stream it is added to: rms f(x) / rms x in x + f(x).

    Value (L,) ≥ 0 in the order of the forward pass, exact on the probe over all samples and positions, padding too;
    keys are the modules in which the additions are made. Seen is every addition of two tensors of one shape of which
    one was computed from the other by at least one layer with weights, or attention; a shortcut that has a layer of
    its own (downsampling) is not seen. Unchanged when stream and branches are scaled together. Details: `left_out`,
    additions without a value and why. No options.
    """

    name = "residual.share"
    title = "Residual branches beside the stream"
    question = Question.STABILITY
    summary = "How much each layer adds to the residual stream, beside what is there already."
    formula = r"\operatorname{rms} f(x) \big/ \operatorname{rms} x"
    undefined = "No residual addition seen in the forward pass; one whose stream is zero, or holds NaN or Inf."
    source = f"{_SOURCE}, there the variance at the end of a branch; the ratio is our choice"
    needs = Needs.SIGNALS
    tier = Tier.FULL
    interval = 100
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "addition"
    references = (ReferenceLine("as large as the stream", 1.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one ratio per addition."""
        values, left_out = {}, {}
        for name, sums in snapshot.branches.items():
            try:
                if not (sums.branch.isfinite() and sums.stream.isfinite()):
                    raise Missing("the stream or the branch holds NaN or Inf")
                if float(sums.stream) == 0:
                    raise Missing("the stream is zero")
                values[name] = float((sums.branch / sums.stream).sqrt())
            except Missing as reason:
                left_out[name] = str(reason)
        return by_layer(values, left_out, "no residual addition was seen in the forward pass")
