"""Decoder 2 as it draws: from noise, whom it is told to."""

from __future__ import annotations

from dataclasses import replace

import torch

from training.models.flow import Sampling


def test_samples_follow_from_seed_and_person_and_scale_0_knows_nobody(trained, make_batch) -> None:
    tokens = trained.identify(make_batch(people=2)).detach()
    tokens = torch.stack([tokens[0], -3 * tokens[1]])
    seeds, way = torch.tensor([7, 7]), Sampling((1.0, 0.6, 0.0), 3.5)
    images = trained.sample(tokens, seeds, 32, way)
    assert images.shape == (2, 3, 32, 32)
    assert torch.allclose(images, trained.sample(tokens, seeds, 32, way))
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images, trained.sample(tokens, seeds + 1, 32, way), atol=1e-3)
    nobody = trained.sample(tokens, seeds, 32, replace(way, scale=0.0))
    assert torch.allclose(nobody[0], nobody[1], atol=1e-5)
    assert [block.attn.processor.scale for block in trained.transformer.transformer_blocks] == [[1.0], [1.0]]


def test_sampling_undoes_the_noise_when_the_velocity_is_known(flow, make_batch, monkeypatch) -> None:
    """Towards one known image the way is straight: any number of steps ends in it."""
    goal = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(
        flow, "_velocity", lambda image, time, _tokens, _guidance: (image - goal) / time.view(-1, 1, 1)
    )
    for times in ((1.0, 0.0), (1.0, 0.9, 0.5, 0.1, 0.0)):
        found = flow.denoise(torch.randn(1, 16, 16), torch.zeros(1, 1, 1), Sampling(times, 1.0))
        assert torch.allclose(found, goal, atol=1e-5)
