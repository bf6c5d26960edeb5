"""Named held-out sets against passes by hand; `heldout` as one of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals as tv
from trainvitals.diagnostics.heldout_sets import HeldoutSets

SINGLE = ["loss.heldout", "gap.loss", "accuracy.heldout", "ece.heldout"]


def by_hand(model, loss, x, y):
    model.eval()
    with torch.no_grad():
        z = model(x)
    largest = [max(math.exp(v) / sum(math.exp(u) for u in row) for v in row) for row in z.tolist()]
    rights = [int(row.argmax()) == int(c) for row, c in zip(z, y, strict=True)]
    return float(loss(z, y)), sum(rights) / len(y), sum(largest) / len(y)


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_numbers_equal_passes_by_hand(case):
    built = case.build()
    shifted = (2 * built.heldout[0] + 1, built.heldout[1])
    sets = {"clean": built.heldout_batches, "shifted": shifted}
    found = tv.measure(built.model, loss=built.loss, batch=built.batch, heldout=sets, what=["heldout"])
    expected = [by_hand(built.model, built.loss, *batch) for batch in (built.heldout, shifted)]
    for part, values in zip(("loss", "accuracy", "confidence"), zip(*expected, strict=True), strict=True):
        assert found[f"heldout.{part}"].keys == ("clean", "shifted")
        assert found[f"heldout.{part}"].value.tolist() == pytest.approx(values, rel=1e-6)
    assert found["heldout.loss"].details["num_samples"] == dict.fromkeys(sets, len(built.heldout[1]))


def problem(N=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, 4, generator=generator), torch.randint(3, (N,), generator=generator)


def measured(what, train=None, **arguments):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    arguments = {"loss": F.cross_entropy} | arguments
    return tv.measure(model, batch=problem() if train is None else train, what=what, **arguments)


@pytest.mark.parametrize(
    ("names", "main"), [(("a", "b"), "a"), (("a", "heldout"), "heldout"), (("b", "a", "c"), "b")]
)
def test_the_set_called_heldout_or_the_first_is_the_one_of_all_single_metrics(names, main):
    sets = {name: problem(seed=i + 1) for i, name in enumerate(names)}
    several, alone = measured([*SINGLE, "heldout"], heldout=sets), measured(SINGLE, heldout=sets[main])
    for name in SINGLE:
        assert several[name].value == alone[name].value
    assert several["heldout.loss"].value[names.index(main)] == alone["loss.heldout"].value


def test_one_set_without_a_name_costs_no_pass_and_each_other_one_costs_one():
    one = measured(["loss.heldout", "heldout"], heldout=problem(seed=1))
    assert one["heldout.loss"].keys == ("heldout",)
    assert one["heldout.loss"].value.tolist() == [one["loss.heldout"].value]
    assert one["heldout.loss"].provenance["forward_passes"] == 0
    sets = {name: problem(seed=i) for i, name in enumerate("abc")}
    assert measured(["loss.heldout", "heldout"], heldout=sets)["heldout.loss"].provenance["forward_passes"] == 2


def test_a_loader_and_a_set_with_labels_that_are_no_classes_are_sets_too():
    x, y = problem(seed=1)
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    sets = {
        "drawn": DataLoader(TensorDataset(x, y), batch_size=8),
        "unseen": (x, torch.full_like(y, -100)),
    }
    found = measured(["heldout"], heldout=sets, loss=loss)
    assert found["heldout.loss"].keys == found["heldout.accuracy"].keys == ("drawn",)
    assert "nan" in found["heldout.loss"].details["left_out"]["unseen"]
    assert "outside 0..2" in found["heldout.accuracy"].details["left_out"]["unseen"]
    assert found["heldout.confidence"].value[0] == pytest.approx(found["heldout.confidence"].value[1])


def test_order_and_duplicates_of_samples_do_not_matter():
    x, y = problem(seed=1)
    sets = {"one": (x, y), "twice": (torch.cat([x, x]), torch.cat([y, y])), "turned": (x.flip(0), y.flip(0))}
    for reading in measured(["heldout"], heldout=sets).values():
        assert reading.value.tolist() == pytest.approx([reading.value[0]] * 3, rel=1e-6)


def forward(model, batch):
    z = model(batch["x"])
    return z, F.cross_entropy(z, batch["labels"])


def as_mapping(seed):
    return dict(zip(("x", "labels"), problem(seed=seed), strict=True))


def test_a_mapping_of_tensors_is_one_batch_and_a_mapping_of_those_is_several_sets():
    arguments = {"train": as_mapping(0), "forward": forward, "loss": None}
    one = measured(["heldout"], heldout=as_mapping(1), **arguments)
    several = measured(["heldout"], heldout={"a": as_mapping(1), "b": as_mapping(2)}, **arguments)
    assert one["heldout.loss"].keys == ("heldout",)
    assert several["heldout.loss"].keys == ("a", "b")
    assert several["heldout.loss"].value[0] == one["heldout.loss"].value[0]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({}, "an empty mapping"),
        ({3: problem()}, "the name 3"),
        ({"a": problem(), "b": (torch.zeros(4, 9), problem()[1][:4])}, r"heldout\['b'\] batch that the model"),
    ],
    ids=["empty", "number", "shape"],
)
def test_what_is_no_set_is_refused(sets, words):
    with pytest.raises(ValueError, match=words):
        measured(["heldout"], heldout=sets)


def test_tokens_with_a_target_count_in_a_language_model():
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(4, 6, 5, generator=generator), torch.randint(5, (4, 6), generator=generator)
    y[:, -2:] = -100
    loss = float(F.cross_entropy(z.flatten(0, 1), y.flatten()))
    found = HeldoutSets().measure(FakeSnapshot(heldout_sets={"a": evaluation(loss, z, y)}))
    assert found["confidence"].value.tolist() == pytest.approx([float(z[:, :4].softmax(-1).amax(-1).mean())], rel=1e-6)
    assert found["accuracy"].value.tolist() == pytest.approx([float((z[:, :4].argmax(-1) == y[:, :4]).float().mean())])


def test_missing_with_the_reason():
    assert "no held-out probe" in measured(["heldout"])["heldout.loss"].missing
    regression = FakeSnapshot(heldout_sets={"a": evaluation(math.inf, torch.zeros(4, 1), torch.randn(4, 1))})
    found = HeldoutSets().measure(regression)
    assert "its loss is inf" in found["loss"].missing
    assert "not a classifier" in found["accuracy"].missing
    assert "not class labels" in found["confidence"].missing
    images = FakeSnapshot(heldout_sets={"a": evaluation(1.0, torch.zeros(4, 3, 2), torch.zeros(4, dtype=torch.long))})
    assert "not a classifier" in HeldoutSets().measure(images)["confidence"].missing
    single = FakeSnapshot(heldout_sets={"a": evaluation(1.0, torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))})
    assert "outputs have shape (4, 1)" in HeldoutSets().measure(single)["confidence"].missing
    one = FakeSnapshot(heldout_sets={"a": evaluation(1.0, torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))})
    assert HeldoutSets().measure(one)["confidence"].error is None


def test_a_watched_run_keeps_the_sets_by_name(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sets = {"clean": problem(seed=1), "shifted": problem(seed=2)}
    with tv.watch(
        model, optimizer, loss=F.cross_entropy, train=problem(), heldout=sets, store=tmp_path, probes=["heldout"],
        every=1,
    ):  # fmt: skip
        F.cross_entropy(model(problem()[0]), problem()[1]).backward()
        optimizer.step()
    with tv.open_run("latest", store=tmp_path) as run:
        series = run.series("heldout.loss")
        assert series["key"].unique().tolist() == ["clean", "shifted"]
        assert len(series) == 4
        assert run.meta["heldout_sets"]["shifted"]["num_samples"] == 20
