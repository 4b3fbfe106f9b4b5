"""Peak FLOP/s of GPUs, for the model FLOPs utilisation (MFU).

A false peak gives a false MFU that is not noticed, so a device is found by its whole name (what
`torch.cuda.get_device_name` gives) or not at all: an "H100 PCIe" is no SXM module, an "H20" no H200, an
"RTX 4090 D" no RTX 4090, and a MIG slice is only part of what its name begins with. Figures are for bfloat16
matrices with float32 sums, without the structured sparsity that data sheets like to count in ("*with sparsity"
figures are halved here). In float32 the peak depends on whether TensorFloat-32 is allowed, so none is given.
"""

from __future__ import annotations

import re

PEAK_BF16_TFLOPS: dict[str, float] = {
    # NVIDIA A100 Tensor Core GPU data sheet: 312, the same for SXM4 and PCIe, 40 and 80 GB.
    r"NVIDIA A100-SXM4-(40|80)GB": 312,
    r"NVIDIA A100-PCIE-40GB": 312,
    r"NVIDIA A100 80GB PCIe": 312,
    # NVIDIA A10G data sheet, as published by AWS for its G5 instances: 70. (An A10, which has more, is another.)
    r"NVIDIA A10G": 70,
    # NVIDIA A10 data sheet: 125.
    r"NVIDIA A10": 125,
    # NVIDIA A40 data sheet: 149.7.
    r"NVIDIA A40": 149.7,
    # NVIDIA H100 Tensor Core GPU architecture white paper, table 2: SXM5 989.4, PCIe 756.
    r"NVIDIA H100 80GB HBM3": 989.4,
    r"NVIDIA H100 PCIe": 756,
    # NVIDIA H100 NVL product brief and H100 data sheet: 1,671 with sparsity.
    r"NVIDIA H100 NVL": 835.5,
    # NVIDIA H200 data sheet: SXM 1,979 with sparsity, NVL 1,671 with sparsity. The die is that of the H100.
    r"NVIDIA H200": 989.4,
    r"NVIDIA H200 NVL": 835.5,
    # NVIDIA GH200 Grace Hopper Superchip data sheet: 990 (1,979 with sparsity); the same Hopper die.
    r"NVIDIA GH200 (480GB|144G HBM3e)": 989.4,
    # NVIDIA HGX B200 data sheet, each GPU: 4,500 with sparsity.
    r"NVIDIA B200": 2250,
    # NVIDIA GB200 NVL72 data sheet, each GPU: 5,000 with sparsity.
    r"NVIDIA GB200": 2500,
    # NVIDIA L4 data sheet: 242 with sparsity.
    r"NVIDIA L4": 121,
    # NVIDIA L40S data sheet: 362.05.
    r"NVIDIA L40S": 362.05,
    # NVIDIA Ada GPU architecture white paper, appendix A: 165.2 with float32 sums.
    r"NVIDIA GeForce RTX 4090": 165.2,
    # NVIDIA Ampere GA102 GPU architecture white paper, table 8: 71 with float32 sums.
    r"NVIDIA GeForce RTX 3090": 71,
    # NVIDIA RTX Blackwell GPU architecture white paper, appendix A: 209.5 with float32 sums.
    r"NVIDIA GeForce RTX 5090": 209.5,
}
"""Dense peak in TFLOP/s by the whole name of the device, a regular expression."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """Most FLOP/s that a device can do, by its data sheet.

    Args:
        device_name: what `torch.cuda.get_device_name` gives.
        precision: `bf16` or `fp32`.

    Returns:
        FLOP/s, or None when not known; then no MFU can be given.
    """
    if precision != "bf16":
        return None
    for pattern, teraflops in PEAK_BF16_TFLOPS.items():
        if re.fullmatch(pattern, device_name):
            return teraflops * 1e12
    return None
