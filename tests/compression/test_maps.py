"""Where feature maps are stored: how many, and the function stays what it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seernet.compression import Quantizer, quantizers
from seernet.compression.compress import quantize_maps
from seernet.models import program

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
    "itself": (lambda x, y: (x + x) * y, 3),
    "number": (lambda x, y: (x + 1) * y, 2),
    "vector": (lambda x, y: x.mean((2, 3)) + y.mean((2, 3)), 2),
    "cat": (lambda x, y: torch.cat([x, y], dim=1), 2),
    "cat keywords": (lambda x, y: torch.cat(tensors=(x, y), dim=1), 2),
    "cat of one tensor twice": (lambda x, y: torch.cat([x, x, y], 1), 2),
    "shared source": (lambda x, y: (x + y) * torch.cat([x, y], 1)[:, :4], 4),
    "operator in place": (operator_in_place, 3),
    "method in place": (method_in_place, 3),
    "chain in place": (chain_in_place, 4),
    "changed in place before": (changed_before_the_add, 3),
}


def enable(network: nn.Module, on: bool) -> None:
    for quantizer in quantizers(network):
        quantizer.enabled = on


@pytest.mark.parametrize(("meet", "count"), MEETINGS.values(), ids=MEETINGS)
def test_each_map_that_is_stored_is_quantized_once(
    meet: Callable[[Tensor, Tensor], Tensor], count: int
) -> None:
    model = Net(meet)
    network = quantize_maps(model, IMAGE, 8)
    assert len(quantizers(network)) == count
    enable(network, False)
    torch.testing.assert_close(network(IMAGE), model(IMAGE))


@pytest.mark.parametrize(("meet", "count"), MEETINGS.values(), ids=MEETINGS)
def test_at_eight_bits_the_function_is_nearly_the_same(
    meet: Callable[[Tensor, Tensor], Tensor], count: int
) -> None:
    model = Net(meet)
    network = quantize_maps(model, IMAGE, 8)
    for quantizer in quantizers(network):
        quantizer.observe(True)
    network(IMAGE)
    for quantizer in quantizers(network):
        quantizer.observe(False)
    expected, found = model(IMAGE), network(IMAGE)
    assert (found - expected).abs().max() <= 0.1 * expected.abs().max()
    assert not torch.equal(found, expected)


class Block(nn.Module):
    """A residual block with all that lies between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.norm(self.stem(x))))
        out = self.second(nn.functional.relu6(self.first(x)))
        out = (x + out).relu_()
        out = out * torch.sigmoid(self.gate(out))
        return self.head(out.mean((2, 3)))


def test_one_reading_layer_needs_no_stored_map_and_others_share_one() -> None:
    network = quantize_maps(Block().eval(), IMAGE, 8)
    lines = [line.strip() for line in network.code.splitlines() if "self.map_" in line]
    read = [line.split("(")[1].split(")")[0] for line in lines]
    # What the pool gives (block and shortcut), the second convolution (add), the sum behind its
    # relu (gate and product), the gate (sigmoid); not what the first gives the second.
    assert read == ["pool", "second", "relu_", "gate"]
    assert network.code.count("map_0") > 2  # both readers read what is stored
    for quantizer in quantizers(network):
        quantizer.enabled = False
    torch.testing.assert_close(network(IMAGE), Block.forward(network, IMAGE))


@pytest.fixture(autouse=True)
def _say_it_again() -> None:
    program.warn.cache_clear()


def test_untraceable_network_stays_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = Net(lambda x, y: x + y if x.sum() > 0 else y + x + x)
    assert quantize_maps(model, IMAGE, 8) is model
    assert "stay unquantized" in caplog.text
    assert "torch.fx cannot trace" in caplog.text


def test_program_that_depends_on_the_mode_stays(caplog: pytest.LogCaptureFixture) -> None:
    class Moody(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x) if self.training else self.a(x)

    model = Moody(lambda x, y: x)
    assert quantize_maps(model, IMAGE, 8) is model
    assert "differs between training and inference" in caplog.text


def test_unfaithful_trace_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def aliased(x: Tensor, y: Tensor) -> Tensor:
        other = x
        x += y  # torch.fx records an add that leaves `other` as it was
        return other + x

    model = Net(aliased)
    assert quantize_maps(model, IMAGE, 8) is model
    assert "computes something else" in caplog.text


def test_each_module_keeps_its_mode() -> None:
    model = Net(lambda x, y: x + y).train()
    model.a.eval()
    network = quantize_maps(model, IMAGE, 8)
    assert (network.training, network.a.training, network.b.training) == (True, False, True)
    assert (model.training, model.a.training) == (True, False)


def test_names_that_are_taken_stay() -> None:
    class Taken(Net):
        def __init__(self) -> None:
            super().__init__(lambda x, y: x + y)
            self.map_0 = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.map_0(x))

    network = quantize_maps(Taken(), IMAGE, 8)
    names = [name for name, m in network.named_modules() if isinstance(m, Quantizer)]
    assert names == ["map_1", "map_2", "map_3"]
    assert isinstance(network.map_0, nn.Conv2d)
