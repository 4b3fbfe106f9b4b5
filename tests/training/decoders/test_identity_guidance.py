"""Identity dropout in training, and classifier-free guidance by identity in sampling."""

from __future__ import annotations

import pytest
import torch
from flow_runs import decoder_of, flow_config, flow_decoder

from training.decoders.flow import Sampling

SCALES = (0.0, 1.0, 3.0)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_of_the_identities_is_unconditional_in_training_only(make_batch, share: float) -> None:
    decoder = flow_decoder(flow_config(None, None, {"identity_dropout": share, "side": 16}))
    identities = 400
    batch = make_batch(people=identities, side=16, targets=1)
    tokens_BLD = torch.randn(identities, 1, 128, generator=torch.Generator().manual_seed(0))
    given: list[torch.Tensor] = []
    decoder.projection.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    with torch.no_grad():
        for training in (True, True, False):
            decoder.train(training).losses(batch, tokens_BLD)
    kept_B = (given[0] == tokens_BLD).flatten(1).all(1)
    unconditional_B = (given[0] == 0).flatten(1).all(1)
    assert torch.equal(unconditional_B, ~kept_B)
    assert abs(unconditional_B.float().mean().item() - share) <= (0.07 if share else 0)
    assert torch.equal(given[0], given[1])  # it follows from the samples' seeds alone
    assert torch.equal(given[2], tokens_BLD)


def test_guidance_extrapolates_from_unconditional_to_conditional(flow, monkeypatch) -> None:
    """Where the velocity is a number that the tokens give, an image that starts at 0 ends at a multiple of it."""
    decoder = decoder_of(flow)
    monkeypatch.setattr(decoder, "_velocity", lambda image, _time, tokens, *_: 1 + tokens.mean() + 0 * image)
    tokens, times = torch.full((1, 4, 8), 2.0), (1.0, 0.3, 0.0)
    ends = [
        decoder.denoise(torch.zeros(1, 4, 16), tokens, Sampling(times, 1.0, identity_guidance=scale)).mean()
        for scale in SCALES
    ]
    assert torch.allclose(torch.stack(ends), torch.tensor([-1.0, -3.0, -7.0]))


def test_guidance_without_dropout_is_refused_in_a_configuration() -> None:
    message = r"sample_identity_guidance: .* need decoders\.flow\.identity_dropout"
    with pytest.raises(ValueError, match=message):
        flow_config(None, None, {"sample_identity_guidance": 2.0})
    flow_config(None, None, {"sample_identity_guidance": 2.0, "identity_dropout": 0.1})
