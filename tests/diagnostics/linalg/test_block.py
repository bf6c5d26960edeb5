import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import snapshot_of

from trainvitals.diagnostics.linalg.block import BlockOperator, layers, matching_names


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_layer_equals_the_block_of_the_dense_hessian(case):
    built = case.build()
    H = dense_hessian(built.model, built.loss, built.batch)
    with snapshot_of(case.build()) as snapshot:
        parameters = snapshot.parameters
        owner = torch.cat([torch.full((p.numel(),), i) for i, p in enumerate(parameters.values())])
        for names in [*layers(parameters).values(), matching_names(parameters, "*weight")]:
            index = torch.isin(owner, torch.tensor([list(parameters).index(n) for n in names])).nonzero().squeeze(1)
            block = BlockOperator(snapshot.hessian, parameters, names)
            V = torch.randn(len(index), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            assert block.shape == (len(index), len(index))
            torch.testing.assert_close(block @ V, H[index][:, index] @ V)
            torch.testing.assert_close(block @ V[:, 0], H[index][:, index] @ V[:, 0])


def test_every_parameter_is_in_one_layer():
    parameters = dict.fromkeys(["a.weight", "a.bias", "b.inner.weight", "scale"], torch.zeros(1))
    assert layers(parameters) == {"a": ["a.weight", "a.bias"], "b.inner": ["b.inner.weight"], "scale": ["scale"]}


def test_bad_names_are_told():
    theta = {"a": torch.zeros(2), "b": torch.zeros(1)}
    for names in ([], ["c"]):
        with pytest.raises(ValueError, match="expected names among"):
            BlockOperator(torch.eye(3), theta, names)
    with pytest.raises(ValueError, match="of size 4"):
        BlockOperator(torch.eye(4), theta, ["a"])
    with pytest.raises(ValueError, match="near names: b"):
        matching_names(theta, "bb")
