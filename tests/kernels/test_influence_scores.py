"""The ghost contraction against every row's own gradient, on vectors, toy nets and a decoder."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from workbench.core import ModelError
from workbench.kernels.influence_scores import InfluenceProbe, reference_scores

B, T = 5, 4
EXACT = {"atol": 1e-12, "rtol": 1e-12}


class Net(nn.Module):
    """Two linear maps with something between; the first is used twice and has a bias."""

    def __init__(self, first=nn.Linear, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.first = first(6, 6)
        self.second = nn.Linear(6, 3, bias=False)
        self.unused = nn.Linear(2, 2)
        self.to(dtype)

    def forward(self, x_BTI):
        return self.second(torch.tanh(self.first(torch.sin(self.first(x_BTI)))))

    @property
    def layers(self):
        return {"first": self.first, "second": self.second}


def conv1d(inputs, outputs):
    return Conv1D(outputs, inputs)


def drawn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def directions(dtype=torch.float64):
    return {"first": drawn(6, 6, seed=7, dtype=dtype), "second": drawn(3, 6, seed=8, dtype=dtype)}


def loss_of(net, x, upstream):
    """A loss a row with a random upstream gradient, so that nothing cancels by symmetry."""
    return lambda: (net(x).square() * upstream).mean(dim=(1, 2))


def truth(net, x, upstream, matrices):
    weights = [layer.weight for layer in net.layers.values()]
    turned = [
        matrix.T if isinstance(layer, Conv1D) else matrix
        for layer, matrix in zip(net.layers.values(), matrices.values(), strict=True)
    ]
    return reference_scores(loss_of(net, x, upstream)(), weights, turned)


@pytest.mark.parametrize("first", [nn.Linear, conv1d], ids=["Linear", "Conv1D"])
def test_every_part_equals_the_row_s_own_gradient(first):
    net, x, upstream = Net(first), drawn(B, T, 6), drawn(B, T, 3, seed=2)
    scores = InfluenceProbe(net.layers, directions()).score(loss_of(net, x, upstream))
    expected_BL = truth(net, x, upstream, directions())
    torch.testing.assert_close(scores.layer_BL, expected_BL, **EXACT)
    torch.testing.assert_close(scores.row_B, expected_BL.sum(dim=1), **EXACT)
    torch.testing.assert_close(scores.token_BT.sum(dim=1), scores.row_B, **EXACT)
    torch.testing.assert_close(scores.loss_B, loss_of(net, x, upstream)().detach())


def test_the_specification_s_sequences():
    a = [[(1, 0, 1), (2, 1, 0)], [(0, 1, 1), (1, 1, -1)], [(1, 2, 0), (0, 0, 1)]]
    s = [[(1, -1), (2, 0)], [(0, 1), (1, 1)], [(-1, 2), (1, 0)]]
    a_BTI, s_BTO = torch.tensor(a).double(), torch.tensor(s).double()
    p = [[-0.59234874, 1.63752050, 0.76988193], [-1.27571154, 1.15236829, 3.51258632]]
    layer = nn.Linear(3, 2, bias=False).double()

    def scored(matrix):
        probe = InfluenceProbe({"map": layer}, {"map": matrix})
        return probe.score(lambda: (layer(a_BTI) * s_BTO).sum(dim=(1, 2)))

    expected = torch.tensor([-1.15369554, 1.30431487, 0.14523976], dtype=torch.float64)
    torch.testing.assert_close(
        scored(torch.tensor(p, dtype=torch.float64)).row_B, expected, atol=1e-7, rtol=0
    )
    g1 = torch.tensor([[5.0, 2, 1], [-1, 0, -1]]).double()
    assert scored(g1).row_B[:2].tolist() == [32, 5]


def test_a_token_s_part_is_that_of_its_own_copy_of_the_weight():
    """Truth: a weight for each position, so that the gradient tells positions apart."""
    weight_TOI = drawn(T, 3, 6, seed=3).requires_grad_()
    x, upstream, matrix = drawn(B, T, 6), drawn(B, T, 3, seed=2), drawn(3, 6, seed=4)
    layer = nn.Linear(6, 3, bias=False).double()
    with torch.no_grad():
        weight_TOI[:] = layer.weight

    def loss(y_BTO):
        return (y_BTO.cumsum(dim=1).square() * upstream).sum(dim=(1, 2))

    found = InfluenceProbe({"map": layer}, {"map": matrix}).score(lambda: loss(layer(x)))
    loss_B = loss(torch.einsum("bti,toi->bto", x, weight_TOI))
    for row in range(B):
        (grad_TOI,) = torch.autograd.grad(loss_B[row], weight_TOI, retain_graph=True)
        expected_T = (grad_TOI * matrix).sum(dim=(1, 2))
        torch.testing.assert_close(found.token_BT[row], expected_T, **EXACT)


def truncated(matrix_OI, rank):
    u_Or, s_r, vt_rI = torch.linalg.svd(matrix_OI, full_matrices=False)
    return u_Or[:, :rank] * s_r[:rank], vt_rI[:rank].T


@pytest.mark.parametrize("width", [4, 9], ids=["narrow input", "wide input"])
def test_factors_of_full_rank_change_nothing_and_lower_ranks_are_their_product(width):
    layer, x = nn.Linear(width, 6).double(), drawn(B, T, width)
    matrix = drawn(6, width, seed=5)

    def scored(direction):
        probe = InfluenceProbe({"map": layer}, {"map": direction})
        return probe.score(lambda: layer(x).square().mean(dim=(1, 2))).row_B

    torch.testing.assert_close(scored(truncated(matrix, 9)), scored(matrix), **EXACT)
    left, right = truncated(matrix, 2)
    assert left.shape == (6, 2) and right.shape == (width, 2)
    torch.testing.assert_close(scored((left, right)), scored(left @ right.T), **EXACT)
    assert not torch.allclose(scored((left, right)), scored(matrix))


def test_batches_of_any_size_give_the_same_scores():
    net, x, upstream = Net(), drawn(B, T, 6), drawn(B, T, 3, seed=2)
    probe = InfluenceProbe(net.layers, directions())
    whole = probe.score(loss_of(net, x, upstream)).row_B
    for size in (1, 2, 3):
        parts = [
            probe.score(loss_of(net, x[i : i + size], upstream[i : i + size])).row_B
            for i in range(0, B, size)
        ]
        torch.testing.assert_close(torch.cat(parts), whole, **EXACT)


def test_no_weight_gradient_is_multiplied():
    """Floating-point operations: forward, one backward product a layer, and the contraction."""
    layers = [nn.Linear(8, 8, bias=False) for _ in range(4)]
    net, x = nn.Sequential(*layers), torch.randn(B, T, 8)
    named = {str(i): layer for i, layer in enumerate(layers)}
    probe = InfluenceProbe(named, {name: torch.randn(8, 8) for name in named})
    with FlopCounterMode(display=False) as counter:
        probe.score(lambda: net(x).square().mean(dim=(1, 2)))
    product = 2 * B * T * 8 * 8
    # The input asks for no gradient, so the first layer makes none.
    assert counter.get_total_flops() == 4 * product + 3 * product + 4 * product


def test_nothing_stays_on_the_model():
    net, x, upstream = Net(), drawn(B, T, 6), drawn(B, T, 3, seed=2)
    before = copy.deepcopy(net.state_dict())
    probe = InfluenceProbe(net.layers, directions())
    probe.score(loss_of(net, x, upstream))
    with pytest.raises(RuntimeError), torch.no_grad():
        probe.score(lambda: net(x[:, :, :2]))
    assert "forward" not in vars(net.first)
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(net.state_dict(), before, atol=0, rtol=0)


def test_bfloat16_products_are_added_up_in_float32():
    net = Net(dtype=torch.float32)
    x, upstream = drawn(B, T, 6).float(), drawn(B, T, 3, seed=2).float()
    probe = InfluenceProbe(net.layers, directions(torch.float32))
    exact = probe.score(loss_of(net, x, upstream)).row_B
    with torch.autocast("cpu", torch.bfloat16):
        coarse = probe.score(loss_of(net, x, upstream))
    assert coarse.token_BT.dtype == torch.float32
    torch.testing.assert_close(coarse.row_B, exact, atol=0.05 * float(exact.abs().max()), rtol=0)


def test_a_layer_given_all_tokens_in_a_line_is_scored_when_their_number_is_known():
    net, x, upstream = Net(), drawn(B, T, 6), drawn(B, T, 3, seed=2)

    def loss_in_a_line():
        return (net(x.flatten(0, 1)).view(B, T, 3).square() * upstream).mean(dim=(1, 2))

    probe = InfluenceProbe(net.layers, directions())
    found = probe.score(loss_in_a_line, T)
    expected = probe.score(loss_of(net, x, upstream))
    torch.testing.assert_close(found.token_BT, expected.token_BT, **EXACT)
    torch.testing.assert_close(found.layer_BL, expected.layer_BL, **EXACT)
    with pytest.raises(ModelError, match="cannot be told apart"):
        probe.score(loss_in_a_line, T + 1)


def test_what_cannot_be_watched_is_named():
    net, x = Net(), drawn(B, T, 6)
    with pytest.raises(ModelError, match="differ in 'second'"):
        InfluenceProbe(net.layers, {"first": drawn(6, 6)})
    with pytest.raises(ModelError, match=r"'second' is \(6, 3\), its weight \(3, 6\)"):
        InfluenceProbe({"second": net.second}, {"second": drawn(6, 3)})
    with pytest.raises(ModelError, match="'norm' is no linear map"):
        InfluenceProbe({"norm": nn.LayerNorm(3)}, {"norm": drawn(3, 3)})
    unused = InfluenceProbe({"unused": net.unused}, {"unused": drawn(2, 2)})
    with pytest.raises(ModelError, match="'unused' is not called"):
        unused.score(lambda: net(x).mean(dim=(1, 2)))
    flat = InfluenceProbe({"second": net.second}, {"second": drawn(3, 6)})
    with pytest.raises(ModelError, match="cannot be told apart"):
        flat.score(lambda: net(x.flatten(0, 1)).view(B, T, 3).mean(dim=(1, 2)))
