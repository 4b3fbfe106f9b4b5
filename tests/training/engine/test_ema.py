"""The average follows the weights, starts quickly, and steps in for them only while it is asked to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.engine.ema import Average, decay_at


def test_the_decay_starts_low_and_ends_at_its_own() -> None:
    decays = [decay_at(step, 0.999) for step in range(20_000)]
    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert decays[-1] == 0.999


def test_the_average_is_that_of_the_weights_so_far() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    average = Average(dict(layer.named_parameters()), decay=0.5)
    expected = 1.0
    for step, value in enumerate((2.0, 4.0, 8.0)):
        layer.weight.data.fill_(value)
        average.update(step)
        decay = decay_at(step, 0.5)
        expected = decay * expected + (1 - decay) * value
    assert average.state()["weight"].item() == pytest.approx(expected)


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back_even_after_an_error() -> None:
    layer = nn.Linear(3, 2)
    average = Average(dict(layer.named_parameters()), decay=0.9)
    averaged = average.state()["weight"].clone()
    layer.weight.data.add_(1.0)
    trained = layer.weight.detach().clone()

    def fail_with_the_average_in_place() -> None:
        with average.in_place():
            assert torch.equal(layer.weight, averaged)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_with_the_average_in_place()
    assert torch.equal(layer.weight, trained)
    assert torch.equal(average.state()["weight"], averaged)
