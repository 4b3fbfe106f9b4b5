"""The list of what was not accepted: a line each, whatever the texts hold, that can be read back."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.not_accepted import COLUMNS, Entry, ListError, missing_in, read_entries, write_not_accepted
from pipeline.sources.manifest import printable

Row = tuple[str, str | None, str, str, str, str | None]

ROWS: list[Row] = [  # sorted by id, as the videos table is
    ("rejected", "no_face", "hq", "hq/a", "a.mp4", "nothing seen"),
    ("rejected", "no_face", "hq", "hq/b", "b.mp4", None),
    ("accepted", None, "hq", "hq/c", "c.mp4", None),
    ("failed", "unreadable", "hq", "hq/e", "e.mp4", "line 1\nline 2\tand \r\u2028 more\x00"),
    ("failed", "timeout", "hq", "hq/f", "f.mp4", "'quoted\""),
    ("rejected", "blurred", "vfhq", "vfhq/d", "d.mp4", r"C:\clips"),
]


def batches(rows: list[Row], size: int = 2) -> list[pa.Table]:
    table = pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
    return [table.slice(start, size) for start in range(0, len(table), size)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report" / "not_accepted.tsv"


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_line_for_each_video_and_clip_that_is_not_accepted_in_order(path: Path, size: int) -> None:
    write_not_accepted(path, batches(ROWS, size), {"vfhq": ["z_1"], "hq": ["y_2", "x_1"]})
    no_file = "the annotations list this clip, but no file has its name"
    assert path.read_text(encoding="utf-8").split("\n") == [
        "status\treason\tsource\tvideo_id\turi\tdetail",
        "failed\ttimeout\thq\thq/f\tf.mp4\t'quoted\"",
        r"failed	unreadable	hq	hq/e	e.mp4	line 1\nline 2\tand \r\u2028 more\x00",
        f"missing\t\thq\thq/x_1\t\t{no_file}",
        f"missing\t\thq\thq/y_2\t\t{no_file}",
        f"missing\t\tvfhq\tvfhq/z_1\t\t{no_file}",
        "rejected\tblurred\tvfhq\tvfhq/d\td.mp4\tC:\\clips",
        "rejected\tno_face\thq\thq/a\ta.mp4\tnothing seen",
        "rejected\tno_face\thq\thq/b\tb.mp4\t",
        "",
    ]


def test_what_was_written_is_read_back_with_its_ids_unchanged(path: Path) -> None:
    hostile = printable("a\tb\nc\\d\udce9\u2028 é.mp4")
    write_not_accepted(
        path, batches([("failed", "timeout", "s", f"s/{hostile}", hostile, "a\nb")]), {"s": ["k"]}
    )
    assert list(read_entries(path)) == [Entry(f"s/{hostile}", "failed", "s"), Entry("s/k", "missing", "s")]
    assert missing_in(path) == {"s": ["k"]}


def test_without_rows_there_is_the_first_line_alone(path: Path) -> None:
    write_not_accepted(path, batches(ROWS[2:3]), {})
    assert path.read_bytes() == b"status\treason\tsource\tvideo_id\turi\tdetail\n"
    assert list(read_entries(path)) == []
    assert missing_in(path) == {}
    assert missing_in(path.with_name("none.tsv")) == {}


def test_hundreds_of_thousands_of_lines_are_written(path: Path) -> None:
    count = 200_000
    ids = [f"s/{number:06d}" for number in range(count)]
    columns = {
        "status": ["rejected"] * count,
        "reason": ["no_face", "blurred"] * (count // 2),
        "source": ["s"] * count,
        "video_id": ids,
        "uri": ids,
        "detail": [None] * count,
    }
    table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))
    write_not_accepted(path, (table.slice(start, 8192) for start in range(0, count, 8192)), {})
    assert [entry.video_id for entry in read_entries(path)] == ids[1::2] + ids[::2]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [
        # An editor has removed the last tab.
        b"failed\ttimeout\thq\thq/a b\ta.mp4\tslow\nrejected\tno_face\thq\thq/c\tc.mp4\n",
        b"video_id\nhq/a b\nhq/c\n",
        b"\xef\xbb\xbfhq/a b\r\n\r\nhq/c",
        b"hq/a b\nstatus\treason\tsource\tvideo_id\turi\tdetail\nhq/c\n",
    ],
)
def test_lines_of_it_and_ids_alone_are_lists_as_well(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.tsv"
    path.write_bytes(content)
    assert [entry.video_id for entry in read_entries(path)] == ["hq/a b", "hq/c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"hq/a\nfailed\thq/b\n",
            "line 2 has 2 columns. A line has the 6 columns of not_accepted.tsv, or a video_id alone",
        ),
        (b"\x00\x00\x00\x1cftyp\xff", "not a text in UTF-8. Give not_accepted.tsv, or lines of it"),
    ],
)
def test_another_file_is_an_error_that_says_what_to_give(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ListError) as caught:
        list(read_entries(path))
    assert str(caught.value) == message
