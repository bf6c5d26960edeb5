"""The plain copy of an FSDP2 model: the same outputs, nothing of the wrapped model called or shared."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from trainvitals.probes.parallel_model import PARTS, device_of, spread_of
from trainvitals.probes.ranks import Ranks
from trainvitals.probes.sharded_weights import NotHeldError, ShardedWeights


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting_point", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.last.weight = nn.Parameter(self.last.weight.detach().clone())
        self.again = nn.Linear(6, 6)
        self.again.weight = self.last.weight  # tied
        self.layers = [self.first, self.last]  # also in a plain list
        self.scale = 1.0

    def forward(self, x):
        return self.scale * self.again(self.layers[1](self.norm(self.layers[0](x))).relu())


def wrapped():
    torch.manual_seed(0)
    model = Net()
    x = torch.randn(5, 4)
    expected = model.eval()(x).detach()
    fully_shard(model.first)
    fully_shard(model)
    weights = ShardedWeights(model, Ranks([0], torch.device("cpu")), torch.device("cpu"))
    weights.gather()
    return model, weights, x, expected


def test_the_twin_computes_what_the_model_does_and_has_none_of_its_hooks(one_rank):
    model, weights, x, expected = wrapped()
    twin = weights.model
    assert torch.equal(twin(x), expected)
    assert type(twin) is Net
    assert not any(isinstance(module, FSDPModule) for module in twin.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in twin.modules())
    assert twin.layers[0] is twin.first
    assert twin.again.weight is twin.last.weight
    assert {type(p) for p in twin.parameters()} == {nn.Parameter}
    assert list(dict(twin.named_parameters())) == list(dict(model.named_parameters()))


def test_the_twin_follows_weights_buffers_flags_and_attributes(one_rank):
    model, weights, x, _ = wrapped()
    model.scale = 3.0
    model.train()
    with torch.no_grad():
        model.norm.running_mean.add_(1.0)
        for p in model.parameters():
            p.to_local().mul_(0.5)
    model.first.weight.requires_grad_(False)
    weights.gather()
    twin = weights.model
    assert twin.training
    assert not twin.first.weight.requires_grad
    assert torch.equal(twin.norm.running_mean, model.norm.running_mean)
    assert torch.equal(twin.last.weight, model.last.weight.full_tensor())
    model.eval()
    twin.eval()
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)


def test_between_measurements_no_weights_are_held(one_rank):
    _, weights, _, _ = wrapped()
    weights.forget()
    assert sum(p.numel() for p in weights.model.parameters()) == 0


def test_the_optimisers_state_comes_whole(one_rank):
    model, weights, x, _ = wrapped()
    optimizer = torch.optim.Adam(model.parameters())
    model(x).square().mean().backward()
    optimizer.step()
    view = weights.optimizer(optimizer)
    assert view.kind == "Adam"
    assert type(view.state["first.weight"]["exp_avg"]) is torch.Tensor
    expected = optimizer.state[model.first.weight]["exp_avg"].full_tensor()
    assert torch.equal(view.state["first.weight"]["exp_avg"], expected)


def test_what_a_rank_does_not_hold_is_gathered_by_none(one_rank):
    _, weights, _, _ = wrapped()

    def nothing():
        raise ValueError("not recorded")

    with pytest.raises(NotHeldError, match="not recorded"):
        weights._gathered(nothing)


def test_how_a_model_is_spread_is_seen_through_wrappers(one_rank):
    model, _, _, _ = wrapped()
    compiled = nn.Module()
    compiled._orig_mod = model  # as torch.compile keeps it
    spread = spread_of(compiled, "auto")
    assert (spread.kind, spread.members, spread.model) == (PARTS, (0,), model)
    assert device_of(model) == torch.device("cpu")
    assert spread_of(nn.Linear(2, 2), "auto") is None
    assert spread_of(nn.parallel.DistributedDataParallel(nn.Linear(2, 2)), "auto") is None  # the only copy


def test_without_a_process_group_a_process_watches_alone():
    assert spread_of(nn.Linear(2, 2), "auto") is None
    with pytest.raises(ValueError, match="init_process_group"):
        spread_of(nn.Linear(2, 2), "all")
    with pytest.raises(ValueError, match="expected ranks= to be one of"):
        spread_of(nn.Linear(2, 2), "some")
