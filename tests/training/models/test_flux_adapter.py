"""The adapter: zero at the start, and afterwards linear in its scale."""

from __future__ import annotations

import torch
from flow_runs import decoder_of
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from training.decoders.flow import FlowDecoder
from training.models.flux_adapter import attend, image_embeds, set_scale


def call(transformer: torch.nn.Module, decoder: FlowDecoder, **more: object) -> torch.Tensor:
    """FLUX on fixed tensors of two images of 4 x 4 tokens."""
    noise = torch.randn(2, 16, transformer.config.in_channels, generator=torch.Generator().manual_seed(0))
    return transformer(
        hidden_states=noise,
        encoder_hidden_states=decoder.prompt_1TD.expand(2, -1, -1),
        pooled_projections=decoder.pooled_1D.expand(2, -1),
        timestep=torch.tensor([0.3, 0.9]),
        img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(decoder.prompt_1TD.shape[1], 3),
        guidance=torch.ones(2),
        return_dict=False,
        **more,
    )[0]


def test_at_step_0_flux_gives_what_it_gave_without_the_adapter_to_the_bit(
    flow, tiny_flux, make_batch
) -> None:
    from diffusers import FluxTransformer2DModel

    plain = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer").eval()
    decoder = decoder_of(flow)
    tokens_BLT = decoder.projection(flow.encode(make_batch(people=1)))
    with torch.no_grad():
        adapted = call(decoder.transformer, decoder, joint_attention_kwargs=attend(tokens_BLT, 2))
        assert torch.equal(adapted, call(plain, decoder))


def test_the_adapter_s_scale_is_linear_in_the_first_block(trained) -> None:
    transformer = decoder_of(trained).transformer
    tokens = torch.randn(1, 4, transformer.config.joint_attention_dim)
    with torch.no_grad():
        outputs = []
        for scale in (0.0, 1.0, 2.0):
            set_scale(transformer, scale)
            block = transformer.transformer_blocks[0]
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


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_tokens_of_any_number_become_vectors_of_four_and_attention_over_them_is_the_same(
    tokens: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens_LD, queries_QD = (torch.randn(rows, width, generator=generator) for rows in (tokens, 5))
    embeds = image_embeds(tokens_LD)
    assert embeds.shape[0] == 1
    assert embeds.shape[2] == 4 * width
    passed_KD = embeds[0].unflatten(1, (4, width)).flatten(0, 1)
    assert len(passed_KD) == tokens * {0: 1, 2: 2}.get(tokens % 4, 4)
    expected = scaled_dot_product_attention(queries_QD, tokens_LD, tokens_LD)
    found = scaled_dot_product_attention(queries_QD, passed_KD, passed_KD)
    assert torch.allclose(found, expected, atol=1e-5)
