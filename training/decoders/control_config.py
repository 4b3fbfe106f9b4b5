"""Configuration of the control decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from training.decoders.base import BuildContext, Decoder
from training.decoders.flow_config import FlowConfig
from training.fields import AbsoluteFolder, Count


class ControlConfig(FlowConfig):
    """Controllable generation: the flow decoder with a ControlNet on landmark images.

    The paper freezes FLUX and the representation, and trains the ControlNet and the identity adapter.
    """

    name: ClassVar[str] = "control"

    adapter: AbsoluteFolder | None = None
    """A run of the flow decoder, or its export, whose adapter this one starts from; the paper's way for all
    representations. With `scratch` and without `scratch.transformer`, also the transformer, which is frozen now.
    Null starts an adapter anew."""
    layers: Count = 4
    """Double blocks of the ControlNet, copies of the transformer's first. The paper gives no size; 4 is the
    default of diffusers, with 1.4 billion parameters."""
    single_layers: Annotated[int, Field(ge=0)] = 0
    """Single blocks of the ControlNet."""

    @model_validator(mode="before")
    @classmethod
    def _transformer_was_a_key(cls, values: Any) -> Any:
        """Runs and exports of earlier versions have a key `transformer` in place of `scratch.transformer`."""
        if not isinstance(values, dict) or "transformer" not in values:
            return values
        others = {key: value for key, value in values.items() if key != "transformer"}
        scratch = others.get("scratch")
        if values["transformer"] is None:
            return others
        if not isinstance(scratch, dict) or scratch.get("transformer") is not None:
            return values  # the key is refused as any unknown one
        return others | {"scratch": scratch | {"transformer": values["transformer"]}}

    @model_validator(mode="after")
    def _a_small_transformer_is_trained_already(self) -> ControlConfig:
        if self.scratch and self.transformer_source is None:
            raise ValueError(
                "adapter: a ControlNet copies a trained transformer. Set adapter to a run of the flow decoder, or "
                "scratch.transformer to one whose transformer is used without its adapter"
            )
        if self.adapter and self.adapter_init:
            raise ValueError(
                "adapter_init: the adapter starts from the one in adapter. Set adapter_init or adapter to null"
            )
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
    def transformer_source(self) -> Path | None:
        """See `FlowConfig.transformer_source`; the run that `adapter` names has a transformer too."""
        return super().transformer_source or (self.adapter if self.scratch else None)

    @property
    def transformer_key(self) -> str:
        """See `FlowConfig.transformer_key`."""
        return super().transformer_key if super().transformer_source else "decoders.control.adapter"

    def of_trained(self) -> Self:
        """See `FlowConfig.of_trained`."""
        found = self.model_copy(update={"adapter": None})
        if self.scratch is None:
            return found
        scratch = self.scratch.model_copy(update={"transformer": self.transformer_source})
        return found.model_copy(update={"scratch": scratch})

    def defining(self) -> dict[str, Any]:
        """Runs may move: of their paths, the names count."""
        found = super().defining()
        if found["adapter"]:
            found["adapter"] = Path(found["adapter"]).name
        return found

    def build(self, context: BuildContext) -> Decoder:
        """See `DecoderConfig.build`."""
        from training.decoders.control_networks import (
            build_control_decoder,  # diffusers takes seconds to import
        )

        return build_control_decoder(self, context)
