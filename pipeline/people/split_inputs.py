"""The files that `split.from` and `split.test_list` name, read before the work of a build starts.

A mistake in them ends the build at once. Their digests stand for their paths in the configuration that the dataset
records: the same content gives the same dataset, wherever the files are.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Split
from pipeline.people.earlier_split import EarlierSplit, read_earlier_split
from pipeline.people.listed_videos import VideoList, read_video_list


@dataclass(frozen=True, eq=False)
class SplitInputs:
    """The content of the files that the split depends on.

    Attributes:
        earlier: of `split.from`.
        list: of `split.test_list`.
    """

    earlier: EarlierSplit | None = None
    list: VideoList | None = None

    @property
    def digests(self) -> dict[str, str]:
        """Config key in `split` -> sha256 of dataset.json, or of the list; only of files that there are."""
        found = {"from": self.earlier, "test_list": self.list}
        return {key: content.sha256 for key, content in found.items() if content is not None}


def read_split_inputs(config: Split) -> SplitInputs:
    """Read what the configuration names.

    Raises:
        BuildError: a file is missing, damaged or of another version of the format; names the key and the remedy.
    """
    return SplitInputs(
        earlier=None if config.earlier is None else read_earlier_split(config.earlier),
        list=None if config.test_list is None else read_video_list(config.test_list),
    )
