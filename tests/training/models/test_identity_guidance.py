"""Withholding who it is in training, and going from nobody to the person in sampling."""

from __future__ import annotations

import pytest
import torch
from flow_runs import flow_config, flow_stage

from training.models.flow import Sampling, Step


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_so_many_people_are_told_nothing_of_and_the_others_everything(make_batch, monkeypatch, share) -> None:
    stage = flow_stage(flow_config(None, None, {"identity_dropout": share}))
    people = 400
    batch = make_batch(people=people, side=4)
    tokens_BLD = torch.randn(people, 16, 128, generator=torch.Generator().manual_seed(0))
    told: list[torch.Tensor] = []

    def drawn(_batch: object, given_BLD: torch.Tensor) -> Step:
        told.append(given_BLD)
        return Step(torch.zeros(people, 1), torch.zeros(people, 1))

    monkeypatch.setattr(stage, "identify", lambda _batch: tokens_BLD)
    monkeypatch.setattr(stage, "draw", drawn)
    stage(batch)
    stage(batch)
    known_B = (told[0] == tokens_BLD).flatten(1).all(1)
    nobody_B = (told[0] == 0).flatten(1).all(1)
    assert torch.equal(nobody_B, ~known_B)
    assert abs(nobody_B.float().mean().item() - share) <= (0.07 if share else 0)
    assert torch.equal(told[0], told[1])  # of the samples' seeds alone


def test_guidance_goes_from_nobody_through_the_person_and_beyond(flow, monkeypatch) -> None:
    """Where the velocity is a number of who it is, an image that starts at 0 ends at what it is multiplied by."""
    monkeypatch.setattr(
        flow, "_velocity", lambda image, _time, tokens, _guidance: 1 + tokens.mean() + 0 * image
    )
    tokens, times = torch.full((1, 4, 8), 2.0), (1.0, 0.3, 0.0)
    ends = [
        flow.denoise(torch.zeros(1, 4, 16), tokens, Sampling(times, 1.0, identity_guidance=guidance)).mean()
        for guidance in (0.0, 1.0, 3.0)
    ]
    assert torch.allclose(torch.stack(ends), torch.tensor([-1.0, -3.0, -7.0]))


def test_guidance_without_dropout_is_refused_in_a_configuration() -> None:
    with pytest.raises(ValueError, match=r"sample_identity_guidance: .* need flow\.identity_dropout"):
        flow_config(None, None, {"sample_identity_guidance": 2.0})
    flow_config(None, None, {"sample_identity_guidance": 2.0, "identity_dropout": 0.1})
