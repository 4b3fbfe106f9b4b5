"""Checks of one sample: its members, its record, and its rows in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from shards.canonical import sha256_hex
from shards.findings import Check, Finding, Findings
from shards.layout import (
    FIELDS,
    IMAGE_FIELDS,
    IMAGES,
    INDEX,
    JSON_FIELD,
    LANDMARKS_FIELD,
    MASK_FIELDS,
    VIDEOS,
    split_member,
)
from shards.metadata import DatasetError
from shards.reader import decode_record_strictly
from shards.record_checks import validate_record, validate_sample
from shards.sample import member_digests, validate_member
from shards.schema import IdentityRecord, Split
from shards.shard_tables import KnownTables
from shards.tables import Row, image_rows
from shards.tar import BLOCK, Member, padded

_KINDS = dict.fromkeys(MASK_FIELDS, Check.BAD_MASK) | {LANDMARKS_FIELD: Check.BAD_LANDMARKS}


@dataclass(frozen=True)
class FoundSample:
    """Consecutive members of a shard with one key: at least one, with names of the format."""

    shard: str
    split: Split
    key: str
    members: Sequence[Member]

    def where(self, field: str) -> str:
        """Position of a field's member, for findings."""
        return f"{self.shard}:{self.key}.{field}"


@dataclass(frozen=True)
class CheckedSample:
    """A sample whose members are still being decoded.

    Attributes:
        record: when it is readable.
        size: bytes of its members.
        where: positions of its members but the record, for findings, by field.
        members: when done, for each of them: whether its digest is wrong, and the error in its content.
        findings: what failed so far.
    """

    record: IdentityRecord | None
    size: int
    where: dict[str, str]
    members: Future[list[tuple[bool, str | None]]]
    findings: Findings

    def settled(self) -> list[Finding]:
        """All that failed, once the members are decoded."""
        for (field, where), (wrong_digest, error) in zip(
            self.where.items(), self.members.result(), strict=True
        ):
            if wrong_digest:
                self.findings.add(Check.MEMBER_DIGEST, where, "has another sha256 than in its record")
            if error is not None:
                self.findings.add(_KINDS.get(field, Check.BAD_IMAGE), where, error)
        return self.findings.found


def check_sample(
    found: FoundSample, stored: KnownTables, findings: Findings, pool: Executor
) -> CheckedSample:
    """Check one sample against the format, its own record and the tables.

    Args:
        found: the sample.
        stored: the tables.
        findings: of this sample; collects the failed checks.
        pool: decodes the images, which is nearly all the work.

    Returns:
        The sample, all but the content of its other members checked.
    """
    data = _check_names(found, findings)
    record = None
    if JSON_FIELD in data:
        record = _check_record(found, data[JSON_FIELD], findings)
    if stored.index is not None:
        _check_index(found, stored.index.rows(found.key), stored.names[INDEX], findings)
    rows: list[Row] = []
    if stored.images is not None:
        rows = stored.images.rows(found.key)
        if record is not None:
            _compare_rows(record, rows, stored.names[IMAGES], findings)
    if record is not None and stored.videos is not None:
        _check_video(record, stored, findings)
    fields = [field for field in FIELDS if field in data and field != JSON_FIELD]
    digests = _digests(record, rows)
    members = pool.submit(_check_members, fields, [data[field] for field in fields], digests)
    size = sum(len(member.data) for member in found.members)
    return CheckedSample(record, size, {field: found.where(field) for field in fields}, members, findings)


def _check_names(found: FoundSample, findings: Findings) -> dict[str, bytes]:
    data: dict[str, bytes] = {}
    for member in found.members:
        _, field = split_member(member.name)
        if field in data:
            findings.add(Check.EXTRA_MEMBER, f"{found.shard}:{member.name}", "occurs twice")
        else:
            data[field] = member.data
    for field in FIELDS:
        if field not in data:
            findings.add(Check.MISSING_MEMBER, found.where(field), "is not there")
    if list(data) != [field for field in FIELDS if field in data]:
        findings.add(
            Check.MEMBER_ORDER, f"{found.shard}:{found.key}", "its members are not in canonical order"
        )
    return data


def _check_record(found: FoundSample, data: bytes, findings: Findings) -> IdentityRecord | None:
    where = found.where(JSON_FIELD)
    try:
        record, canonical = decode_record_strictly(data)
    except (DatasetError, ValueError, RecursionError) as error:
        findings.add(Check.BAD_RECORD, where, str(error))
        return None
    if not canonical:
        findings.add(Check.BAD_RECORD, where, "is not canonical JSON")
    for message in validate_record(record):
        findings.add(Check.BAD_RECORD, where, message)
    if record.key != found.key:
        findings.add(Check.BAD_RECORD, where, f"is the record of {record.key}")
    if record.split is not found.split:
        findings.add(Check.WRONG_SPLIT, where, f"has split {record.split} in a shard of {found.split}")
    return record


def _check_index(found: FoundSample, rows: Sequence[Row], name: str, findings: Findings) -> None:
    where = f"{name}:{found.key}"
    if len(rows) != 1:
        message = f"has {len(rows)} rows for a sample of {found.shard}, expected 1"
        findings.add(Check.INDEX_DISAGREES, where, message)
        return
    row = rows[0]
    start, last = found.members[0].offset - BLOCK, found.members[-1]
    end = last.offset + padded(len(last.data))
    actual = {"shard": found.shard, "split": found.split.value, "offset": start, "length": end - start}
    for column, value in actual.items():
        if row[column] != value:
            message = f"{column} is {row[column]!r}, in the shard it is {value!r}"
            findings.add(Check.INDEX_DISAGREES, where, message)
    actual_members = [
        {"name": member.name, "offset": member.offset, "size": len(member.data)} for member in found.members
    ]
    if row["members"] != actual_members:
        findings.add(
            Check.INDEX_DISAGREES, where, "its members differ from those of the shard in name, offset or size"
        )
    for member in found.members:
        if member.name == f"{found.key}.{JSON_FIELD}" and sha256_hex(member.data) != row["json_sha256"]:
            message = f"has another sha256 than in {name}"
            findings.add(Check.MEMBER_DIGEST, f"{found.shard}:{member.name}", message)


def _digests(record: IdentityRecord | None, rows: Sequence[Row]) -> dict[str, str]:
    """The expected digests of the members, by field.

    Where the record is damaged, the images table has those of images and masks.
    """
    if record is not None:
        return member_digests(record)
    images = zip(IMAGE_FIELDS, (row["sha256"] for row in rows), strict=False)
    return dict(images) | dict(zip(MASK_FIELDS, (row["mask_sha256"] for row in rows), strict=False))


def _check_members(
    fields: list[str], members: list[bytes], digests: dict[str, str]
) -> list[tuple[bool, str | None]]:
    return [
        _check_member(field, data, digests.get(field)) for field, data in zip(fields, members, strict=True)
    ]


def _check_member(field: str, data: bytes, digest: str | None) -> tuple[bool, str | None]:
    return digest is not None and sha256_hex(data) != digest, validate_member(field, data)


def _compare_rows(record: IdentityRecord, rows: Sequence[Row], name: str, findings: Findings) -> None:
    where = f"{name}:{record.key}"
    if not rows:
        findings.add(Check.IMAGES_DISAGREE, where, "has no rows")
    for expected, row in zip(image_rows(record), rows, strict=False):
        columns = [column for column, value in expected.items() if row[column] != value]
        if columns:
            message = f"image {expected['index']} differs from the sample's record in {', '.join(columns)}"
            findings.add(Check.IMAGES_DISAGREE, where, message)


def _check_video(record: IdentityRecord, stored: KnownTables, findings: Findings) -> None:
    where = f"{stored.names[VIDEOS]}:{record.video_id}"
    video = None if stored.videos is None else stored.videos.get(record.video_id)
    if video is None:
        message = f"has no readable row, but sample {record.key} was cut from it"
        findings.add(Check.VIDEOS_DISAGREE, where, message)
        return
    for message in validate_sample(record, video):
        findings.add(Check.VIDEOS_DISAGREE, where, f"sample {record.key}: {message}")
