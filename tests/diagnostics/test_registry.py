"""Names, groups and presets find their diagnostics; what is none of these is an error with near names."""

import pytest

from trainvitals.diagnostics import registry
from trainvitals.diagnostics.base import Tier
from trainvitals.diagnostics.registry import PRESETS, described, matching, registered, select


def test_each_preset_holds_the_ones_before_it():
    light, default, full = ({cls.name for cls in matching(preset)} for preset in PRESETS)
    on_request = {name for name, cls in registered().items() if cls.tier == Tier.ON_REQUEST}
    assert light < default <= full == set(registered()) - on_request
    assert {cls.name for cls in matching("landscape")} == {"landscape"} <= on_request


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gap.loss", {"gap"}), ("gap", {"gap"}), ("nc", {"nc1", "nc2", "nc3", "nc4", "nc.cosines", "nc.plane"}),
     ("oui", {"oui"}), ("hessian", {name for name in registered() if name.startswith("hessian.")})],
)  # fmt: skip
def test_a_name_a_part_and_a_group(name, expected):
    assert {cls.name for cls in matching(name)} == expected


def test_an_unknown_name_gives_near_ones():
    with pytest.raises(ValueError, match=r"hesian\.top.*did you mean hessian\.top"):
        select(["hesian.top"])


def test_options_of_a_group_go_to_the_members_that_know_them():
    chosen = {d.name: d for d in select({"nc": {"layers": "conv*"}})}
    assert chosen["nc1"].layers == "conv*"
    assert "layers" not in chosen["nc.plane"].option_names()
    with pytest.raises(ValueError, match="no_such_option"):
        select({"nc": {"layers": "conv*", "no_such_option": 2}})


def test_options_reach_the_diagnostic_and_unknown_ones_are_refused():
    (top,) = select({"hessian.top": {"k": 2}})
    assert top.k == 2
    with pytest.raises(ValueError, match=r"hessian\.top"):
        select({"hessian.top": {"no_such_option": 2}})
    with pytest.raises(ValueError, match="that are measured"):
        select(["oui"], {"hessian.top": {"k": 2}})


def test_select_gives_fresh_instances():
    assert select(["overtraining"])[0] is not select(["overtraining"])[0]


def test_two_diagnostics_of_one_name_are_named_both(monkeypatch):
    cls = registered()["oui"]
    twin = type("Twin", (cls,), {"__module__": "somewhere.else"})
    monkeypatch.setattr(registry, "_discover", lambda: iter([cls, twin]))
    with pytest.raises(ImportError, match=r"(?s)oui.*somewhere\.else"):
        registered.__wrapped__()


def test_described_holds_every_part():
    assert {"gap.loss", "gap.accuracy", "nc2.norms_means"} <= set(described())
