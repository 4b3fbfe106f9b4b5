"""The EMA follows the weights, quickly at first, and replaces them only inside its `with` block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.engine.ema import Ema, decay_at


def test_the_decay_starts_low_and_ends_at_its_own() -> None:
    decays = [decay_at(step, 0.999) for step in range(20_000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.999


def test_it_is_the_exponential_moving_average_of_the_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    ema = Ema(dict(layer.named_parameters()), decay=0.5)
    expected = 1.0
    for step, value in enumerate((2.0, 4.0, 8.0)):
        layer.weight.data.fill_(value)
        ema.update(step)
        decay = decay_at(step, 0.5)
        expected = decay * expected + (1 - decay) * value
    assert ema.state()["weight"].item() == pytest.approx(expected)


def test_it_replaces_the_weights_and_restores_them_even_after_an_error() -> None:
    layer = nn.Linear(3, 2)
    ema = Ema(dict(layer.named_parameters()), decay=0.9)
    averaged = ema.state()["weight"].clone()
    layer.weight.data.add_(1.0)
    trained = layer.weight.detach().clone()

    def fail_inside() -> None:
        with ema.in_place():
            assert torch.equal(layer.weight, averaged)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert torch.equal(layer.weight, trained)
    assert torch.equal(ema.state()["weight"], averaged)
