"""Every image file of a person is listed, and all else is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from seaweed import S3Server

from pipeline.errors import BuildError
from pipeline.photos.listing import Person, list_people
from pipeline.photos.read import digest_of_person, read_batches
from pipeline.rejection import Rejection
from shards.digests import directory_sha256
from shards.schema import Reason
from storage.path import path_of


def fill(folder: Path, names: str) -> None:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def contents(person: Person) -> list[bytes]:
    return [each.data for batch in read_batches(person, 10.0) for each in batch]


def test_people_are_directories_and_photographs_are_the_images_in_them(tmp_path: Path) -> None:
    fill(tmp_path, "anna/2.JPG anna/1.png anna/notes.txt anna/.hidden.jpg anna/more/3.jpg beside.jpg a.csv")
    fill(tmp_path, ".git/x.jpg")
    (tmp_path / "berta").mkdir()
    listing = list_people(tmp_path)
    assert [person.name for person in listing.people] == ["anna", "berta"]
    assert [file.name for file in listing.people[0].files] == ["1.png", "2.JPG"]
    assert listing.people[1].files == ()
    assert listing.photographs == 2
    assert listing.messages() == [
        "Ignored 2 files that are not photographs (.csv: 1, .txt: 1).",
        "Ignored 1 photograph that is in no person's directory.",
        "Ignored 1 directory inside a person's directory, such as anna/more.",
    ]


def test_links_are_followed_and_those_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "store/1.jpg people/anna/0.jpg")
    (tmp_path / "people" / "berta").symlink_to(tmp_path / "store")
    (tmp_path / "people" / "anna" / "lost.jpg").symlink_to("nowhere")
    (tmp_path / "people" / "anna" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "people" / "anna" / "link.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    os.mkfifo(tmp_path / "people" / "anna" / "pipe.jpg")
    anna, berta = list_people(tmp_path / "people").people
    assert [file.name for file in berta.files] == ["1.jpg"]
    assert [file.name for file in anna.files] == ["0.jpg", "link.jpg", "loop.jpg", "lost.jpg", "pipe.jpg"]
    (batch,) = read_batches(anna, 10.0)
    found = {
        file.name: each.rejection.reason if each.rejection else each.data
        for file, each in zip(anna.files, batch, strict=True)
    }
    assert found == {
        "0.jpg": b"people/anna/0.jpg",
        "link.jpg": b"store/1.jpg",
        "loop.jpg": Reason.INACCESSIBLE,
        "lost.jpg": Reason.INACCESSIBLE,
        "pipe.jpg": Reason.NOT_A_REGULAR_FILE,
    }


def test_the_digest_of_a_person_is_that_of_the_directory_in_the_format(tmp_path: Path) -> None:
    fill(tmp_path, "anna/b.jpg anna/a.PNG anna/A.webp anna/notes.txt")
    (tmp_path / "anna" / "empty.jpg").touch()
    (person,) = list_people(tmp_path).people
    digests = [each.sha256 for batch in read_batches(person, 10.0) for each in batch]
    assert digest_of_person(person.files, digests) == directory_sha256(tmp_path / "anna")
    assert digest_of_person(person.files, [None, *digests[1:]]) is None
    assert digest_of_person((), ()) is None


def test_a_person_is_another_one_when_a_photograph_changes(tmp_path: Path) -> None:
    fill(tmp_path, "anna/1.jpg berta/1.jpg")
    anna, berta = list_people(tmp_path).people
    assert anna.digest != berta.digest
    assert list_people(tmp_path).people[0].digest == anna.digest
    os.utime(tmp_path / "anna" / "1.jpg", ns=(1, 1))
    assert list_people(tmp_path).people[0].digest != anna.digest


def test_names_of_any_bytes_are_printable(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\n"
    os.mkdir(folder)  # noqa: PTH102 - bytes
    for name in (b"/\xfe.jpg", b"/a\nb.jpg"):
        with open(folder + name, "wb") as file:  # noqa: PTH123
            file.write(b"x")
    (person,) = list_people(tmp_path).people
    assert person.name == "\\xff\\u000a"
    first, second = (each for batch in read_batches(person, 10.0) for each in batch)
    assert isinstance(first.rejection, Rejection)
    assert first.rejection.detail == "its name contains a line feed. Rename it"
    assert second.data == b"x"


def test_a_source_without_people_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nowhere is not a directory\. Pass the directory"):
        list_people(tmp_path / "nowhere")
    fill(tmp_path, "flat/1.jpg")
    with pytest.raises(BuildError, match=r"flat contains no directory\. Expected one for each person"):
        list_people(tmp_path / "flat")


@pytest.mark.usefixtures("credentials")
def test_an_object_store_is_listed_as_a_directory_is(s3: S3Server, tmp_path: Path) -> None:
    fill(tmp_path, "anna/2.JPG anna/1.png anna/notes.txt anna/.hidden.jpg anna/more/3.jpg beside.jpg c/1.jpg")
    there = list_people(path_of(s3.upload(tmp_path, "photographs", "listing")))
    here = list_people(tmp_path)
    assert there.messages() == here.messages()
    for remote, local in zip(there.people, here.people, strict=True):
        assert remote.name == local.name
        names = [[(file.name, file.bytes) for file in person.files] for person in (remote, local)]
        assert names[0] == names[1]
        data = [
            [each.data for batch in read_batches(person, 10.0) for each in batch]
            for person in (remote, local)
        ]
        assert data[0] == data[1]
