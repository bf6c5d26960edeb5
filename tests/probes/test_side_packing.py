"""How a model travels: everything that can be reached arrives, tensors apart, the user's hooks not."""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainvitals.probes.side_packing import packed, unpacked

X = torch.linspace(-1, 1, 12).reshape(3, 4)


def sent(value):
    """Return what arrives, with copies of the tensors."""
    body, tensors = packed(value)
    return unpacked(body, [t.detach().clone() for t in tensors])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.offset = torch.full((4,), 0.5)  # neither parameter nor buffer
        self.temperature = 3.0
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x))) * self.scale / self.temperature + self.offset * self.frozen


def test_a_model_arrives_with_its_flags_numbers_and_ties():
    model = Tied()
    model.embed.eval()
    model.temperature = 5.0
    twin = sent(model)
    assert torch.equal(twin(X), model(X))
    assert twin.head.weight is twin.embed.weight
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
    assert {n: (p.requires_grad, p.data_ptr() != q.data_ptr()) for (n, p), q in zip(
        twin.named_parameters(), model.parameters(), strict=True)} == {
        "frozen": (False, True), "embed.weight": (True, True)}  # fmt: skip
    assert "scale" not in twin.state_dict()


def test_no_number_is_in_the_bytes():
    small, large = (packed(nn.Linear(n, n))[0] for n in (4, 400))
    assert len(large) < len(small) + 100


def test_a_tensor_is_sent_once_however_many_hold_it():
    model = Tied()
    _, tensors = packed({"model": model, "state": {"w": model.embed.weight}, "loss": lambda out, y: model.scale})
    assert len(tensors) == len({id(t) for t in tensors}) == 4


def test_hooks_of_the_users_stay_at_home_and_those_that_make_weights_travel():
    with pytest.warns(FutureWarning):
        layer = torch.nn.utils.weight_norm(nn.Linear(4, 4))
    lock = threading.Lock()  # cannot be pickled
    layer.register_forward_hook(lambda *_: print(lock))
    twin = sent(layer)
    assert len(twin._forward_hooks) == 0
    assert len(layer._forward_hooks) == 1
    with torch.no_grad():
        twin.weight_g.mul_(2)
    assert torch.allclose(twin(X) - twin.bias, 2 * (layer(X) - layer.bias), rtol=1e-6)


def test_parametrised_modules_which_torch_refuses_to_pickle_arrive():
    layer = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).eval()
    twin = sent(layer)
    assert torch.equal(twin(X), layer(X))
    assert type(layer).__name__ == type(twin).__name__ == "ParametrizedLinear"
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in layer.named_parameters()]


def test_what_a_forward_pass_left_with_a_graph_arrives_without():
    model = Tied()
    model.last = model(X)
    assert torch.equal(sent(model).last, model.last.detach())


def test_attributes_of_a_parameter_arrive():
    layer = nn.Linear(4, 4)
    layer.weight.width_multiplier = 4
    assert sent(layer).weight.width_multiplier == 4


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.zeros(2, 0), torch.tensor(True), torch.ones(2, dtype=torch.complex64).conj()],
    ids=["sparse", "empty", "bool", "conjugate"],
)
def test_tensors_of_every_kind_arrive(tensor):
    twin = sent({"t": tensor})["t"]
    assert twin.layout == tensor.layout
    assert torch.equal(twin.to_dense().resolve_conj(), tensor.to_dense().resolve_conj())


def test_functions_that_close_over_numbers_arrive_as_they_are_now():
    beta = [0.5]
    loss = functools.partial(lambda weight, out, y: weight * beta[0] * F.mse_loss(out, y), 2.0)
    beta[0] = 0.25
    assert sent(loss)(X, X + 2) == pytest.approx(2.0)


@pytest.mark.slow  # the compiler's import
def test_a_compiled_loss_arrives_as_it_was_written():
    def plain(out, y):
        return (out - y).square().mean()

    assert sent(torch.compile(plain, backend="eager"))(X, X + 2) == pytest.approx(4.0)


def test_what_cannot_travel_raises():
    model = Tied()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle"):
        packed(model)


def test_a_module_that_another_process_would_not_find_travels_by_its_code(tmp_path):
    body = "class Doubling(nn.Module):\n    def forward(self, x): return WIDTH * x\n"
    source = f"from torch import nn\nWIDTH = 2.0\n{body}"
    (tmp_path / "hidden_away.py").write_text(source)
    spec = importlib.util.spec_from_file_location("hidden_away", tmp_path / "hidden_away.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hidden_away"] = module
    try:
        spec.loader.exec_module(module)
        body, _ = packed(module.Doubling())
    finally:
        del sys.modules["hidden_away"]
    assert unpacked(body, [])(21.0) == 42.0
    assert sent(nn.Linear).__module__ == "torch.nn.modules.linear"  # and what it would find, by its name
