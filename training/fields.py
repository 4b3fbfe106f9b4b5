"""Types of configuration keys that several sections of a training run share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from shards.schema import IMAGES_PER_IDENTITY

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path; `~` is expanded, because shells do not expand it behind an equals sign."""
AbsoluteFolder = Annotated[Path, AfterValidator(Path.expanduser), AfterValidator(Path.absolute)]
"""Such a path, made absolute: of what is read again later, from another working directory."""
Weights = Annotated[str, AfterValidator(os.path.expanduser)]
"""Such a path, or owner/name of a repository on the Hugging Face hub."""
Images = Annotated[int, Field(ge=1, le=IMAGES_PER_IDENTITY)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="40 hexadecimal digits")]
