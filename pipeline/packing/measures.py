"""How long a sample will be in its shard, to the byte, before it is written.

A record is the staged identity, what the source says of the video, and the person and the split. Each of these is
a JSON object with keys that the others do not have, so their lengths add up. A video's staged file holds the
lengths and the digest of each identity; the digest covers the images, because the record has theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.records import StagedSample
from shards.canonical import compact_json, sha256_hex
from shards.schema import FORMAT_VERSION, FromSource, Split, VideoOutcome
from shards.write_shard import member_length

MEASURES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        # Of the images, masks and landmarks in the tar.
        pa.field("files_bytes", pa.int64(), nullable=False),
        # Of the identity as JSON, with its embedding and without.
        pa.field("record_bytes", pa.int64(), nullable=False),
        pa.field("bare_record_bytes", pa.int64(), nullable=False),
        # Of the identity as JSON.
        pa.field("record_sha256", pa.string(), nullable=False),
    ]
)
"""What the staged file of a video holds of each of its identities, in their order."""


def measured(samples: Iterable[StagedSample]) -> pa.Table:
    """The measures of a video's identities."""
    rows = []
    for sample in samples:
        value = sample.identity.model_dump(mode="json")
        text = compact_json(value)
        files = (*sample.jpegs, *sample.masks, sample.landmarks)
        rows.append(
            {
                "key": sample.identity.key,
                "files_bytes": sum(member_length(len(data)) for data in files),
                "record_bytes": len(text),
                "bare_record_bytes": len(compact_json(without_embedding(value))),
                "record_sha256": sha256_hex(text),
            }
        )
    return pa.Table.from_pylist(rows, MEASURES)


def without_embedding(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON value, as it is stored without embeddings."""
    images = [{**image, "identity_cosine": None} for image in record["images"]]
    return {**record, "embedder": None, "embedding": None, "images": images}


def of_video(outcome: VideoOutcome) -> bytes:
    """The part of a record that is the same for all identities of a video, as JSON."""
    facts = {name: getattr(outcome, name) for name in FromSource.model_fields}
    value = FromSource(**facts).model_dump(mode="json")
    return compact_json({**value, "format_version": FORMAT_VERSION, "video_id": outcome.video_id})


def of_placement(person_id: str, split: Split) -> bytes:
    """The part of a record that is known once all videos are, as JSON."""
    return compact_json({"person_id": person_id, "split": split.value})


def joined_length(*objects: int) -> int:
    """Bytes of a JSON object with the members of some others, none of them empty, from their bytes."""
    return sum(objects) - (len(objects) - 1)
