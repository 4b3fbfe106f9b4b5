"""Decoders run in a sandbox."""

from pipeline.sandbox.attempts import DecodeFailed
from pipeline.sandbox.client import SandboxedDecoder
from pipeline.sandbox.confine import Enforced

__all__ = ["DecodeFailed", "Enforced", "SandboxedDecoder"]
