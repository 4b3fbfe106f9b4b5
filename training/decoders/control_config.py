"""Configuration of the control decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from training.decoders.base import BuildContext, Decoder
from training.decoders.flow_config import FlowConfig
from training.fields import Count, Folder


class ControlConfig(FlowConfig):
    """Controllable generation: the flow decoder with a ControlNet on landmark images.

    The paper freezes FLUX and the representation, and trains the ControlNet and the identity adapter.
    """

    name: ClassVar[str] = "control"

    adapter: Folder | None = None
    """A run of the flow decoder, or its export, whose adapter this one starts from; the paper's way for all
    representations. With `scratch`, also the transformer, which is frozen now. Null starts an adapter anew."""
    transformer: Folder | None = None
    """With `scratch` and without `adapter`: a run or an export whose transformer is frozen and used."""
    layers: Count = 4
    """Double blocks of the ControlNet, copies of the transformer's first. The paper gives no size; 4 is the
    default of diffusers, with 1.4 billion parameters."""
    single_layers: Annotated[int, Field(ge=0)] = 0
    """Single blocks of the ControlNet."""

    @model_validator(mode="after")
    def _a_small_transformer_is_trained_already(self) -> ControlConfig:
        if self.scratch and self.adapter is None and self.transformer is None:
            raise ValueError(
                "adapter: a ControlNet copies a trained transformer. Set adapter to a run of the flow decoder, or "
                "transformer to one whose transformer is used without its adapter"
            )
        if self.adapter and self.adapter_init:
            raise ValueError(
                "adapter_init: the adapter starts from the one in adapter. Set adapter_init or adapter to null"
            )
        if self.transformer and (self.adapter or self.scratch is None):
            raise ValueError("transformer: expected with scratch and without adapter, and only there")
        if self.scratch and self.layers > self.scratch.layers:
            raise ValueError(
                f"layers: the transformer has {self.scratch.layers} double blocks to copy, given: {self.layers}"
            )
        if self.scratch and self.single_layers > self.scratch.single_layers:
            raise ValueError(
                f"single_layers: the transformer has {self.scratch.single_layers} single blocks to copy, given: "
                f"{self.single_layers}"
            )
        return self

    @property
    def frozen_keys(self) -> tuple[str, ...]:
        """See `DecoderConfig.frozen_keys`."""
        source = "transformer" if self.transformer else "adapter"
        return (*super().frozen_keys, *([f"decoders.control.{source}"] if self.scratch else []))

    def defining(self) -> dict[str, Any]:
        """Runs may move: of their paths, the names count."""
        found = super().defining()
        for key in ("adapter", "transformer"):
            if found[key]:
                found[key] = Path(found[key]).name
        return found

    def build(self, context: BuildContext) -> Decoder:
        """See `DecoderConfig.build`."""
        from training.decoders.control_networks import (
            build_control_decoder,  # diffusers takes seconds to import
        )

        return build_control_decoder(self, context)
