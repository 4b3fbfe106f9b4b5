"""How large is a flow step on FLUX.1-dev? Counted without weights, on any machine, in a minute.

    python benchmarks/step_sizes.py --text-tokens 512 --targets 8

Everything is on the meta device, where tensors have shapes but no memory: parameters, FLOPs (as
`training.engine.flops` counts them), and what FLUX's blocks keep of one identity for the backward pass, by the
share of them that `run.activation_checkpointing` computes twice. Attention counts as a fused kernel keeps it, all
else as eager torch does; torch.compile keeps less. What the encoder keeps, the autoencoder's passing needs and the
allocator's slack come on top.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from noise_flux import write_sizes
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from settings.loading import load_workflow
from training.config import Config
from training.engine.flops import step_flops
from training.model import meta_model

WORKFLOW = Path(__file__).parent.parent / "workflows" / "train_flow_paper.yaml"
COPIES = {"weights": 1, "gradients": 1, "optimiser": 2, "EMA": 1}
"""Of what is trained, in float32."""


def main() -> None:
    """Count and print a table."""
    options = parse()
    config = configured(options.text_tokens, options.targets)
    model = meta_model(config)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    held = sum(COPIES.values()) * trained * 4 + frozen * 2
    print(
        f"images of an identity            {config.data.most_inputs} inputs, {options.targets} targets of 512 px"
    )
    print(f"text tokens                      {options.text_tokens}")
    print(f"trained                          {trained:,} parameters")
    print(f"frozen                           {frozen:,} parameters, in bfloat16")
    print(f"held by one process              {gb(held)}: {', '.join(COPIES)}, frozen weights")
    print(f"FLOPs of an identity             {step_flops(config) / 1e12:.2f} TFLOP (exact)")
    flux = model.decoder("flow").transformer
    kept, inputs = (kept_bytes(flux, options, twice=twice) for twice in (False, True))
    block = kept / (len(flux.transformer_blocks) + len(flux.single_transformer_blocks))
    print("run.activation_checkpointing     kept by FLUX's blocks   together   FLUX's work")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        # Behind the last forward pass, one block of mean size at a time is computed again.
        again = kept + share * (inputs - kept) + (block if share else 0)
        print(f"{share:>28.2f}{gb(again):>26}{gb(held + again):>11}{work(share):>14.2f}")


def kept_bytes(transformer: Any, options: argparse.Namespace, *, twice: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights left out.

    Args:
        transformer: adapted, on the meta device; its frozen weights become bfloat16.
        options: how many tokens and images.
        twice: blocks keep only what comes in, as with `run.activation_checkpointing`.
    """
    for weight in transformer.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    own = {storage(weight) for weight in transformer.parameters()}
    found: dict[int, torch.Tensor] = {}
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if storage(tensor) not in own:
            found[storage(tensor)] = tensor  # referenced, so that its memory is not reused
        return tensor

    images, width = options.targets, transformer.config.joint_attention_dim
    image_tokens = (512 // 16) ** 2
    with torch.device("meta"):
        half = {"dtype": torch.bfloat16}
        identity = torch.empty(1, 256, width, requires_grad=True, **half)
        arguments = {
            "hidden_states": torch.empty(images, image_tokens, transformer.config.in_channels, **half),
            "encoder_hidden_states": torch.empty(images, options.text_tokens, width, **half),
            "pooled_projections": torch.empty(images, transformer.config.pooled_projection_dim, **half),
            "timestep": torch.empty(images, **half),
            "guidance": torch.empty(images, **half),
            "img_ids": torch.empty(image_tokens, 3),
            "txt_ids": torch.empty(options.text_tokens, 3),
            "joint_attention_kwargs": {
                "ip_hidden_states": [identity[:, None].expand(-1, images, -1, -1)],
            },
        }

    def keep_what_comes_in(_: nn.Module, args: Any, named: dict[str, Any]) -> None:
        for value in (*args, *named.values()):
            if isinstance(value, torch.Tensor):
                keep(value)

    handles = [block.register_forward_pre_hook(keep_what_comes_in, with_kwargs=True) for block in blocks]
    hooks = nullcontext() if twice else saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, patch("torch.nn.functional.scaled_dot_product_attention", fused_attention):
        transformer(**arguments)
    for handle in handles:
        handle.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def fused_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """Keeps what flash attention keeps: no table of all tokens against all."""
    attended: torch.Tensor = _Fused.apply(query, key, value)
    return attended


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attended = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, attended, query.new_empty(query.shape[:-1]).float())
        return attended


def storage(tensor: torch.Tensor) -> int:
    """Names the memory of a tensor, which views share."""
    return int(tensor.untyped_storage()._cdata)


def configured(text_tokens: int, targets: int) -> Config:
    """The paper's workflow, one identity a step, around a folder that holds FLUX.1-dev's sizes only."""
    base = write_sizes(Path(tempfile.gettempdir()) / "flux-sizes")
    changes = [
        *("data.root=none", "output=none", "representation.clip=random", "representation.weights=null"),
        *("batch=1", "run.per_process=1", f"data.targets={targets}"),
        *(f"decoders.flow.base={base}", f"decoders.flow.text_tokens={text_tokens}"),
    ]
    return load_workflow(WORKFLOW, changes, Config)


def work(share: float) -> float:
    """A step of frozen blocks: a forward pass, one as large through their activations, and what is done twice."""
    return (2 + share) / 2


def gb(size: float) -> str:
    """In gigabytes."""
    return f"{size / 1e9:.2f} GB"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text-tokens", type=int, default=512, help="that FLUX reads (512)")
    parser.add_argument("--targets", type=int, default=8, help="targets of an identity (8)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
