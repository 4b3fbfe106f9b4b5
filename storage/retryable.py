"""Which failures of a read or a write time may heal, and what to tell the user about the others.

Messages name the file and what to do. They never quote a server's answer beyond its error code: it may repeat what
was sent, and URLs may be signed.
"""

from __future__ import annotations

import errno
import re

from storage.errors import NoSuchFile, StorageError
from storage.urls import credentials_of

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_URL = re.compile(r"\S+://\S+")
_WORTH_ANOTHER_TRY = {408, 425, 429}
_METADATA_SERVICE = re.compile(r"://(?:169\.254\.|metadata\.google)")


class Transient(Exception):  # noqa: N818 - says what kind of failure it is
    """A try failed in a way that another may mend; the message is the reason."""


def classified(root: str, path: str, error: Exception) -> Exception:
    """What to raise for an error met while reading a file: `Transient`, or the error that ends the run."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    # Without URLs: a key may hold any words.
    text = _URL.sub("<URL>", str(error))
    reason, variables = reason_of(error), credentials_of(root)
    status = _STATUS.search(text)
    if _METADATA_SERVICE.search(str(error)) or "token request" in text:
        # Where there is such a service it may be away for a moment.
        return Transient(f"no credentials were found: set {variables} in the environment")
    if "invalid path" in text.lower() or type(error).__name__ == "InvalidPathError":
        shown = ascii(text.splitlines()[0])[1:-1][-160:]
        message = (
            f"{root}: the key of an object cannot be read ({shown}). Rename the object, or give a URL that "
            "does not hold it"
        )
        return StorageError(message, f"{root}/{path}", errno.EINVAL)
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
        return NoSuchFile(f"{root} has no {path}", f"{root}/{path}")
    if "NoSuchBucket" in text:
        message = f"{root}: there is no such bucket. Check the URL, and AWS_ENDPOINT_URL if it is set"
    elif isinstance(error, PermissionError):
        message = (
            f"{root}/{path} may not be read by this user. Check the permissions of the file and its folders"
        )
    elif isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        message = (
            f"{root}/{path}: access is refused ({reason}). Check the credentials in the environment ({variables}) "
            "and that they may read and write there"
        )
    elif "redirect" in text.lower():
        message = f"{root}/{path}: the server redirects ({reason}). Check AWS_REGION and AWS_ENDPOINT_URL"
    elif status and 400 <= int(status[1]) < 500 and int(status[1]) not in _WORTH_ANOTHER_TRY:
        message = (
            f"{root}/{path}: the server refuses the request ({reason}). Check the URL and the credentials in "
            f"the environment ({variables})"
        )
    else:
        return Transient(reason)
    return StorageError(message, f"{root}/{path}", errno.EACCES)


def reason_of(error: Exception) -> str:
    """What went wrong in a few words, without URLs, which may be signed, and without the server's answer."""
    text = str(error)
    if (status := _STATUS.search(text)) is not None:
        code = _CODE.search(text)
        return f"HTTP {status[1]}" + (f", {code[1]}" if code else "")
    line = text.split("\n", 1)[0]
    line = re.sub(r"^Generic \w+ error: ", "", line)
    line = re.sub(r"Error performing [A-Z]+ \S+ in \S+ - ", "", line)
    line = re.sub(r"\S+://\S+", "<URL>", line)
    for name, words in (("kind: Connect", "no connection"), ("kind: Timeout", "nothing came in time")):
        if name in text:
            return f"{line} ({words})"
    return line
