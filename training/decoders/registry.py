"""All decoders, by the names that a workflow uses. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import model_validator

from settings.section import Section
from training.decoders.base import DecoderConfig
from training.decoders.control_config import ControlConfig
from training.decoders.flow_config import FlowConfig
from training.decoders.mtd import MtdConfig


class Decoders(Section):
    """The decoders of a run, one or more; each has a loss, and the run minimises their weighted sum."""

    mtd: MtdConfig | None = None
    """The masked transformer decoder (Omni-ID, section 3.3)."""
    flow: FlowConfig | None = None
    """Flow matching on FLUX with an identity adapter (Omni-ID, section 3.4)."""

    control: ControlConfig | None = None
    """The flow decoder with a ControlNet on landmark images (Omni-ID, section 4.1)."""

    @model_validator(mode="after")
    def _there_is_one(self) -> Decoders:
        if not any(True for _ in self.chosen()):
            known = ", ".join(f"decoders.{name}" for name in type(self).model_fields)
            raise ValueError(
                f"decoders: expected one or more of {known}; an empty section, {{}}, takes its defaults"
            )
        return self

    def chosen(self) -> Iterator[tuple[str, DecoderConfig]]:
        """The decoders that a run has, by name, in the order above."""
        for name in type(self).model_fields:
            if (config := getattr(self, name)) is not None:
                yield name, config
