"""A FLUX of a few thousand parameters, in the directory layout that diffusers and the trainer load.

Its widths differ from one another, so that what is mixed up does not fit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

PROMPT_WORDS = ("photo", "of", "a", "person", ".")
LETTERS = "abcdefghijklmnopqrstuvwxyz."
TEXT_WIDTH = 24
POOLED_WIDTH = 20
LATENT_CHANNELS = 4
HEADS, HEAD_WIDTH = 2, 16
LAYERS, SINGLE_LAYERS = 2, 1


def write_tiny_flux(folder: Path, *, seed: int = 0, guidance: bool = True) -> Path:
    """Write a whole pipeline with random weights; nothing of it is zero, so every part shows in what comes out."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=4 * LATENT_CHANNELS,
            num_layers=LAYERS,
            num_single_layers=SINGLE_LAYERS,
            attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=POOLED_WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 8, 8),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=2,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(_clip_vocabulary()),
                hidden_size=POOLED_WIDTH,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        t5 = T5EncoderModel(
            T5Config(vocab_size=200, d_model=TEXT_WIDTH, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
        )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=clip.eval(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=t5.eval(),
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer.eval(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _clip_vocabulary() -> dict[str, int]:
    specials = ["<|startoftext|>", "<|endoftext|>"]
    return {
        token: number for number, token in enumerate([*specials, *LETTERS, *(f"{x}</w>" for x in LETTERS)])
    }


def _clip_tokenizer() -> object:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=32)


def _t5_tokenizer() -> object:
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in PROMPT_WORDS] + [(letter, -3.0) for letter in LETTERS]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


if __name__ == "__main__":
    write_tiny_flux(Path(sys.argv[1]))
