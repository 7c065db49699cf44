"""Per-domain gradients from one backward pass against one backward pass per domain."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from workbench.core import ConfigError, ModelError
from workbench.kernels.domain_gradients import (
    GradientTracker,
    domain_runs,
    projection_error,
    reference_domain_gradients,
)

B, T, DOMAINS = 6, 5, 4
MIXED = [2, 0, 2, 2, 0, 3]


class Net(nn.Module):
    """Two linear maps with something between; the first has a bias."""

    def __init__(self, first=nn.Linear, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.first = first(7, 9)
        self.second = nn.Linear(9, 4, bias=False)
        self.to(dtype)

    def forward(self, x_bTI):
        return self.second(torch.tanh(self.first(x_bTI)))

    @property
    def layers(self):
        return {"first": self.first, "second": self.second}


def losses(net, x_bTI, upstream):
    """A loss a row with a random upstream gradient, so that nothing cancels by symmetry."""
    return (net(x_bTI) * upstream).mean(dim=(1, 2))


def inputs(dtype=torch.float32, rows=B):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, T, 7, generator=generator, dtype=dtype)
    return x, torch.randn(rows, T, 4, generator=generator, dtype=dtype)


def truth(net, x, upstream, domain_b):
    loss_b = losses(net, x, upstream)
    weights = [layer.weight for layer in net.layers.values()]
    grads_KN = reference_domain_gradients(loss_b, domain_b, weights, DOMAINS)
    return grads_KN @ grads_KN.T


def tracked(net, x, upstream, domain_b, tracker, size=None):
    size = size or len(x)
    tracker.reset(keeps_parts=size < len(x))
    for i in range(0, len(x), size):
        part = slice(i, i + size)
        with tracker.rows(domain_b[part]):
            loss_b = losses(net, x[part], upstream[part])
        loss_b.sum().backward()
    return tracker.gram()


@pytest.mark.parametrize("first", [nn.Linear, lambda i, o: Conv1D(o, i)], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("domain_b", [MIXED, sorted(MIXED), [1] * B], ids=str)
@pytest.mark.parametrize("size", [B, 2, 1])
def test_products_equal_one_backward_pass_per_domain(first, domain_b, size):
    net, (x, upstream) = Net(first, torch.float64), inputs(torch.float64)
    gram_KK = tracked(net, x, upstream, domain_b, GradientTracker(net.layers, DOMAINS), size)
    expected = truth(net, x, upstream, domain_b)
    tolerance = 1e-6 if size < B else 1e-12
    torch.testing.assert_close(gram_KK, expected, atol=tolerance, rtol=tolerance)
    absent = [k for k in range(DOMAINS) if k not in domain_b]
    assert not gram_KK[absent].any() and not gram_KK[:, absent].any()


@pytest.mark.parametrize("width", [None, 3])
@pytest.mark.parametrize("first", [nn.Linear, lambda i, o: Conv1D(o, i)], ids=["Linear", "Conv1D"])
def test_the_gradient_of_training_is_what_it_was(width, first):
    x, upstream = inputs()
    plain, watched = Net(first), Net(first)
    watched.load_state_dict(plain.state_dict())
    plain_x, watched_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    losses(plain, plain_x, upstream).sum().backward()
    expected = {name: p.grad.clone() for name, p in plain.named_parameters()}
    plain.zero_grad(set_to_none=True)
    tracker = GradientTracker(watched.layers, DOMAINS, projection_width=width)
    tracked(watched, watched_x, upstream, MIXED, tracker)
    for name, p in watched.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])
    torch.testing.assert_close(watched_x.grad, plain_x.grad)


class Shared(Net):
    """The second map is used by two blocks."""

    def __init__(self):
        super().__init__(dtype=torch.float64)
        self.second = nn.Linear(9, 9, bias=False, dtype=torch.float64)

    def forward(self, x_bTI):
        return self.second(torch.tanh(self.second(torch.tanh(self.first(x_bTI)))))[..., :4]


@pytest.mark.parametrize("size", [B, 2])
def test_a_layer_that_blocks_share_adds_up_over_its_uses(size):
    net, (x, upstream) = Shared(), inputs(torch.float64)
    tracker = GradientTracker(net.layers, DOMAINS)
    for _ in range(2):
        gram_KK = tracked(net, x, upstream, MIXED, tracker, size)
        torch.testing.assert_close(gram_KK, truth(net, x, upstream, MIXED), atol=1e-6, rtol=1e-6)


def test_norms_of_rows_refuse_a_layer_that_blocks_share():
    net, (x, upstream) = Shared(), inputs(torch.float64)
    tracker = GradientTracker(net.layers, DOMAINS, row_norms=True)
    with pytest.raises(ModelError, match="more than one block") as error:
        tracked(net, x, upstream, MIXED, tracker)
    assert error.value.remedy


def test_nothing_stays_on_the_layers_and_nothing_is_kept_without_autograd():
    net, (x, upstream) = Net(), inputs()
    tracker = GradientTracker(net.layers, DOMAINS)
    with torch.no_grad(), tracker.rows(MIXED):
        losses(net, x, upstream)
    assert not tracker.gram().any()
    with pytest.raises(RuntimeError), tracker.rows(MIXED):
        raise RuntimeError
    assert "forward" not in vars(net.first) and not net.first._forward_hooks
    losses(net, x, upstream).sum().backward()
    assert not tracker.gram().any()


def test_reset_forgets_the_last_step():
    net, (x, upstream) = Net(), inputs()
    tracker = GradientTracker(net.layers, DOMAINS, row_norms=True)
    once = tracked(net, x, upstream, MIXED, tracker, size=2)
    torch.testing.assert_close(tracked(net, x, upstream, MIXED, tracker, size=2), once)
    assert tracker.row_squares().shape == (B,)


@pytest.mark.parametrize("width", [None, 4])
def test_row_norms_are_those_of_each_row_s_own_gradient(width):
    net, (x, upstream) = Net(), inputs()
    tracker = GradientTracker(net.layers, DOMAINS, projection_width=width, row_norms=True)
    tracked(net, x, upstream, MIXED, tracker, size=3)
    weights = [layer.weight for layer in net.layers.values()]
    rows = reference_domain_gradients(losses(net, x, upstream), range(B), weights, B)
    torch.testing.assert_close(tracker.row_squares(), rows.square().sum(dim=1))


def test_projected_products_are_unbiased_and_their_error_is_as_stated():
    """Over many projections: the mean is the truth; the spread stays below the stated one."""
    net, (x, upstream) = Net(), inputs()
    expected = truth(net, x, upstream, MIXED).double()
    draws = torch.stack(
        [
            tracked(
                net,
                x,
                upstream,
                MIXED,
                GradientTracker(net.layers, DOMAINS, projection_width=8, seed=100 * seed),
            )
            for seed in range(400)
        ]
    )
    norms = expected.diagonal().sqrt()
    scale = torch.outer(norms, norms)
    kept = scale > 0
    error = ((draws - expected) / scale.clamp(min=1e-30))[:, kept]
    stated = projection_error(8)
    assert error.mean(dim=0).abs().max() < 4 * stated / np.sqrt(400)
    assert error.std(dim=0).max() < stated * 1.1
    assert GradientTracker(net.layers, DOMAINS, projection_width=8).sampling_error == stated
    assert GradientTracker(net.layers, DOMAINS).sampling_error == 0


def test_the_stated_error_is_reached_by_a_gradient_of_rank_one():
    layer = nn.Linear(7, 9, bias=False)
    a = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0))
    draws = []
    for seed in range(3000):
        tracker = GradientTracker({"layer": layer}, 1, projection_width=4, seed=seed)
        tracker.reset(keeps_parts=False)
        with tracker.rows([0]):
            y = layer(a)
        y.sum().backward()
        draws.append(tracker.gram()[0, 0])
    relative = torch.stack(draws) / (9 * a.square().sum())
    assert relative.std().item() == pytest.approx(projection_error(4), rel=0.15)


@pytest.mark.parametrize("width", [None, 3])
def test_bfloat16_products_are_added_up_in_float32(width):
    net, (x, upstream) = Net(), inputs()
    tracker = GradientTracker(net.layers, DOMAINS, projection_width=width)
    exact = tracked(net, x, upstream, MIXED, tracker, size=1)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = tracked(net, x, upstream, MIXED, tracker, size=1)
    assert all(slot.parts_KOI.dtype == torch.float32 for slot in tracker._slots)
    norms = exact.diagonal().sqrt()
    error = (coarse - exact).abs() / torch.outer(norms, norms).clamp(min=1e-30)
    assert error[exact != 0].max() < 0.03


def test_ranks_add_their_parts_before_the_products():
    """Two trackers that share sums by hand stand for two ranks; one of them sees no row."""
    net, (x, upstream) = Net(dtype=torch.float64), inputs(torch.float64)
    whole = tracked(net, x, upstream, MIXED, GradientTracker(net.layers, DOMAINS))
    for cut in (4, B):
        trackers = [GradientTracker(net.layers, DOMAINS) for _ in range(2)]
        for tracker, part in zip(trackers, (slice(0, cut), slice(cut, B)), strict=True):
            tracker.reset()
            if len(x[part]):
                with tracker.rows(MIXED[part]):
                    loss_b = losses(net, x[part], upstream[part])
                loss_b.sum().backward()
        sent = iter([slot.parts_KOI for slot in trackers[0]._slots])

        def reduce(parts, sent=sent):
            return parts + next(sent)

        torch.testing.assert_close(trackers[1].gram(reduce), whole, atol=1e-6, rtol=1e-6)


def test_runs_of_rows():
    assert domain_runs([1, 1, 0, 2, 2, 2]) == [(1, 0, 2), (0, 2, 3), (2, 3, 6)]
    assert domain_runs([]) == []


def test_what_cannot_be_tracked_is_named():
    with pytest.raises(ModelError, match="'norm' is no linear map"):
        GradientTracker({"norm": nn.LayerNorm(3)}, 2)
    with pytest.raises(ConfigError, match="projection_width = 0"):
        GradientTracker({"a": nn.Linear(2, 2)}, 2, projection_width=0)
