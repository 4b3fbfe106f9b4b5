"""Which samples each shard holds, and what names its content: arithmetic over columns, without a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from pipeline.packing.measures import joined_length, of_placement
from pipeline.people.assign import Placement
from pipeline.provenance import code_version
from pipeline.sources.manifest import Video
from shards.layout import JSON_FIELD
from shards.metadata import ShardLimits
from shards.placement import ShardPlaces
from shards.schema import FORMAT_VERSION, Split
from shards.tar import archive_size
from shards.write_shard import member_length


@dataclass(frozen=True)
class ShardPlan:
    """A shard that will be written.

    Attributes:
        name: of the shard.
        samples: how many it will hold.
        bytes: of the tar.
        content: digest of everything that its bytes depend on, so that an earlier run's shard is recognised.
        rows: of its samples in the columns, in their order.
    """

    name: str
    samples: int
    bytes: int
    content: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class ShardTask:
    """What writes a shard: the videos whose identities it holds, with what was decided on these.

    Attributes:
        plan: of the shard.
        videos: in the order of their samples: each with the keys of some of its identities, and their placements.
    """

    plan: ShardPlan
    videos: tuple[tuple[Video, tuple[tuple[str, Placement], ...]], ...]

    @property
    def label(self) -> str:
        """Names the task in messages."""
        return self.plan.name


def plan_shards(
    sizes: pa.Table, placements: Mapping[str, Placement], limits: ShardLimits, *, embeddings: bool
) -> list[ShardPlan]:
    """The shards of a dataset, sorted by (split, number).

    Args:
        sizes: `pipeline.packing.collect.SIZES` of the identities, sorted by key.
        placements: of those that the dataset holds, by key.
        limits: where shards are cut.
        embeddings: whether records contain them.
    """
    keys = sizes["key"].to_pylist()
    placed = [(placements[key].split, row) for row, key in enumerate(keys) if key in placements]
    placed.sort(key=lambda place: place[0].value)  # stable: keys stay sorted within a split
    columns = _Columns(sizes, embeddings=embeddings)
    places = ShardPlaces(limits)
    lengths = ((split, row, columns.length(row, placements[keys[row]])) for split, row in placed)
    named = ((places.place(split, length), row, length) for split, row, length in lengths)
    plans = []
    for name, group in groupby(named, key=lambda item: item[0]):
        items = list(group)
        rows = tuple(row for _, row, _ in items)
        content = hashlib.sha256(f"{FORMAT_VERSION} {code_version()} {embeddings} {name}\n".encode())
        for row in rows:
            content.update(columns.content(row, placements[keys[row]]))
        size = archive_size(sum(length for _, _, length in items))
        plans.append(ShardPlan(name, len(rows), size, content.hexdigest(), rows))
    return plans


def tasks(
    plans: list[ShardPlan], sizes: pa.Table, placements: Mapping[str, Placement], videos: list[Video]
) -> Iterator[ShardTask]:
    """What each shard is written from, made one after another.

    Args:
        plans: of the shards.
        sizes: as for `plan_shards`.
        placements: likewise.
        videos: all of the build, in the order that `sizes` counts.
    """
    for plan in plans:
        rows = sizes.select(["key", "video"]).take(pa.array(plan.rows, pa.int64())).to_pylist()
        yield ShardTask(
            plan,
            tuple(
                (videos[video], tuple((row["key"], placements[row["key"]]) for row in group))
                for video, group in groupby(rows, key=lambda row: row["video"])
            ),
        )


class _Columns:
    def __init__(self, sizes: pa.Table, *, embeddings: bool) -> None:
        self._files = sizes["files_bytes"].to_numpy()
        self._records = sizes["record_bytes" if embeddings else "bare_record_bytes"].to_numpy()
        self._sources = sizes["source_bytes"].to_numpy()
        self._sizes = sizes
        self._record_digests = sizes["record_sha256"].combine_chunks()
        self._source_digests = sizes["source_sha256"].combine_chunks()
        self._placements: dict[tuple[int, Split], int] = {}

    def length(self, row: int, placement: Placement) -> int:
        """Bytes of a sample in the tar."""
        found = (len(placement.person_id), placement.split)
        if found not in self._placements:  # the name of a person is plain ASCII
            self._placements[found] = len(of_placement(placement.person_id, placement.split))
        record = joined_length(int(self._records[row]), int(self._sources[row]), self._placements[found])
        return int(self._files[row]) + member_length(record)

    def content(self, row: int, placement: Placement) -> bytes:
        """All that the bytes of a sample depend on."""
        digests = f"{self._record_digests[row]} {self._source_digests[row]} {JSON_FIELD} ".encode()
        return digests + of_placement(placement.person_id, placement.split) + b"\n"
