"""The flow decoder generates images from noise and identity tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from flow_runs import decoder_of

from training.decoders.flow import Sampling


def test_samples_follow_from_seed_and_tokens_and_scale_0_is_unconditional(trained, make_batch) -> None:
    decoder = decoder_of(trained)
    tokens = trained.encode(make_batch(people=2)).detach()
    tokens = torch.stack([tokens[0], -3 * tokens[1]])
    seeds, sampling = torch.tensor([7, 7]), Sampling((1.0, 0.6, 0.0), 3.5)
    images = decoder.sample(tokens, seeds, 32, sampling)
    assert images.shape == (2, 3, 32, 32)
    assert torch.allclose(images, decoder.sample(tokens, seeds, 32, sampling))
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images, decoder.sample(tokens, seeds + 1, 32, sampling), atol=1e-3)
    without = decoder.sample(tokens, seeds, 32, replace(sampling, scale=0.0))
    assert torch.allclose(without[0], without[1], atol=1e-5)
    scales = [block.attn.processor.scale for block in decoder.transformer.transformer_blocks]
    assert scales == [[1.0], [1.0]]


def test_sampling_undoes_the_noise_when_the_velocity_is_known(flow, monkeypatch) -> None:
    """Towards one known image the path is straight: any number of steps ends in it."""
    decoder = decoder_of(flow)
    goal = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(decoder, "_velocity", lambda image, time, *_: (image - goal) / time.view(-1, 1, 1))
    for times in ((1.0, 0.0), (1.0, 0.9, 0.5, 0.1, 0.0)):
        found = decoder.denoise(torch.randn(1, 16, 16), torch.zeros(1, 1, 1), Sampling(times, 1.0))
        assert torch.allclose(found, goal, atol=1e-5)
