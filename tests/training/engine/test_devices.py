"""A peak is that of exactly this device, or none."""

from __future__ import annotations

import pytest

from training.engine.devices import PEAK_BF16_TFLOPS, peak_flops


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_relatives_are_told_apart(name: str, teraflops: float) -> None:
    assert peak_flops(name, "bf16") == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H20",
        "NVIDIA H800",
        "NVIDIA H100",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "nvidia h200",
        "cpu",
        "",
    ],
)
def test_a_device_that_is_not_listed_has_no_peak(name: str) -> None:
    assert peak_flops(name, "bf16") is None


def test_float32_has_no_peak_because_it_depends_on_settings() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "fp32") is None


def test_no_name_could_mean_two_devices() -> None:
    for pattern in PEAK_BF16_TFLOPS:
        assert pattern.startswith("NVIDIA ")
        assert ".*" not in pattern
