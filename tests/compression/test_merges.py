"""Quantizers before adds and concatenations: how many, and the function stays what it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seernet.compression import Quantizer, quantizers
from seernet.compression.compress import quantize_merges
from seernet.models import merges

IMAGE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions whose outputs meet in a function."""

    def __init__(self, meet: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.meet = meet

    def forward(self, x: Tensor) -> Tensor:
        return self.meet(self.a(x), self.b(x))


def method_in_place(x: Tensor, y: Tensor) -> Tensor:
    x.add_(y, alpha=2)
    return x * x


def chain_in_place(x: Tensor, y: Tensor) -> Tensor:
    z = x.add_(y)
    return z.add_(x * 3)


def operator_in_place(x: Tensor, y: Tensor) -> Tensor:
    x += y
    x += y
    return x


def changed_before_the_add(x: Tensor, y: Tensor) -> Tensor:
    positive = x.relu_()
    return x + y * positive


MEETINGS = {
    "operator": (lambda x, y: x + y, 2),
    "function": (lambda x, y: torch.add(x, y, alpha=2), 2),
    "keywords": (lambda x, y: torch.add(input=x, other=y), 2),
    "method": (lambda x, y: x.add(y), 2),
    "itself": (lambda x, y: (x + x) * y, 1),
    "number": (lambda x, y: (x + 1) * y, 0),
    "vector": (lambda x, y: x.mean((2, 3)) + y.mean((2, 3)), 0),
    "cat": (lambda x, y: torch.cat([x, y], dim=1), 2),
    "cat keywords": (lambda x, y: torch.cat(tensors=(x, y), dim=1), 2),
    "cat of one tensor twice": (lambda x, y: torch.cat([x, x, y], 1), 2),
    "shared source": (lambda x, y: (x + y) * torch.cat([x, y], 1)[:, :4], 2),
    "operator in place": (operator_in_place, 3),
    "method in place": (method_in_place, 2),
    "chain in place": (chain_in_place, 4),
    "changed in place before": (changed_before_the_add, 2),
}


def enable(network: nn.Module, on: bool) -> None:
    for quantizer in quantizers(network):
        quantizer.enabled = on


@pytest.mark.parametrize(("meet", "count"), MEETINGS.values(), ids=MEETINGS)
def test_each_tensor_that_enters_is_quantized_once(
    meet: Callable[[Tensor, Tensor], Tensor], count: int
) -> None:
    model = Net(meet)
    network = quantize_merges(model, IMAGE, 8)
    assert len(quantizers(network)) == count
    enable(network, False)
    torch.testing.assert_close(network(IMAGE), model(IMAGE))


@pytest.mark.parametrize(("meet", "count"), MEETINGS.values(), ids=MEETINGS)
def test_at_eight_bits_the_function_is_nearly_the_same(
    meet: Callable[[Tensor, Tensor], Tensor], count: int
) -> None:
    model = Net(meet)
    network = quantize_merges(model, IMAGE, 8)
    for quantizer in quantizers(network):
        quantizer.observe(True)
    network(IMAGE)
    for quantizer in quantizers(network):
        quantizer.observe(False)
    expected, found = model(IMAGE), network(IMAGE)
    assert (found - expected).abs().max() <= 0.1 * expected.abs().max()
    assert torch.equal(found, expected) is (count == 0)


def test_add_reads_the_tensor_as_it_is_by_then() -> None:
    network = quantize_merges(Net(changed_before_the_add), IMAGE, 8)
    met: list[Tensor] = []
    for quantizer in quantizers(network):
        quantizer.enabled = False
        quantizer.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].clone()))
    network(IMAGE)
    assert met[0].min() >= 0  # after the relu in place


@pytest.fixture(autouse=True)
def _say_it_again() -> None:
    merges._warn.cache_clear()


def test_untraceable_network_stays_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = Net(lambda x, y: x + y if x.sum() > 0 else y + x + x)
    assert quantize_merges(model, IMAGE, 8) is model
    assert "stay unquantized" in caplog.text
    assert "torch.fx cannot trace" in caplog.text


def test_program_that_depends_on_the_mode_stays(caplog: pytest.LogCaptureFixture) -> None:
    class Moody(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x) if self.training else self.a(x)

    model = Moody(lambda x, y: x)
    assert quantize_merges(model, IMAGE, 8) is model
    assert "differs between training and inference" in caplog.text


def test_unfaithful_trace_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def aliased(x: Tensor, y: Tensor) -> Tensor:
        other = x
        x += y  # torch.fx records an add that leaves `other` as it was
        return other + x

    model = Net(aliased)
    assert quantize_merges(model, IMAGE, 8) is model
    assert "computes something else" in caplog.text


def test_each_module_keeps_its_mode() -> None:
    model = Net(lambda x, y: x + y).train()
    model.a.eval()
    network = quantize_merges(model, IMAGE, 8)
    assert (network.training, network.a.training, network.b.training) == (True, False, True)
    assert (model.training, model.a.training) == (True, False)


def test_names_that_are_taken_stay() -> None:
    class Taken(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, y: x + y)
            self.merge_0 = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.merge_0(x))

    network = quantize_merges(Taken(), IMAGE, 8)
    names = [name for name, m in network.named_modules() if isinstance(m, Quantizer)]
    assert names == ["merge_1", "merge_2"]
    assert isinstance(network.merge_0, nn.Conv2d)
