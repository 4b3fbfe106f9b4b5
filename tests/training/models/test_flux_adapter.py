"""The adapter: nothing at the start, and as much afterwards as its scale says."""

from __future__ import annotations

import torch

from training.models.flow import FlowStage
from training.models.flux_adapter import attend, set_scale


def call(transformer: torch.nn.Module, flow: FlowStage, **more: object) -> torch.Tensor:
    """FLUX on fixed tensors of two images of 4 x 4 tokens."""
    noise = torch.randn(2, 16, transformer.config.in_channels, generator=torch.Generator().manual_seed(0))
    return transformer(
        hidden_states=noise,
        encoder_hidden_states=flow.prompt_1TD.expand(2, -1, -1),
        pooled_projections=flow.pooled_1D.expand(2, -1),
        timestep=torch.tensor([0.3, 0.9]),
        img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(flow.prompt_1TD.shape[1], 3),
        guidance=torch.ones(2),
        return_dict=False,
        **more,
    )[0]


def test_at_step_0_flux_gives_what_it_gave_without_the_adapter_to_the_bit(
    flow, tiny_flux, make_batch
) -> None:
    from diffusers import FluxTransformer2DModel

    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer").eval()
    tokens_BLT = flow.projection(flow.identify(make_batch(people=1)))
    with torch.no_grad():
        adapted = call(flow.transformer, flow, joint_attention_kwargs=attend(tokens_BLT, 2))
        assert torch.equal(adapted, call(plain, flow))


def test_the_adapter_s_scale_is_linear_in_the_first_block(trained) -> None:
    tokens = torch.randn(1, 4, trained.transformer.config.joint_attention_dim)
    with torch.no_grad():
        outputs = []
        for scale in (0.0, 1.0, 2.0):
            set_scale(trained.transformer, scale)
            block = trained.transformer.transformer_blocks[0]
            outputs.append(
                block(
                    hidden_states=torch.ones(2, 16, 32),
                    encoder_hidden_states=torch.ones(2, 3, 32),
                    temb=torch.ones(2, 32),
                    joint_attention_kwargs=attend(tokens, 2),
                )[1]
            )
    assert torch.allclose(outputs[2] - outputs[1], outputs[1] - outputs[0], atol=1e-4)
    assert (outputs[1] - outputs[0]).abs().max() > 0.1
