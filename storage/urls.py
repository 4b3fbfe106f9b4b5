"""URLs of object stores, such as s3://bucket/prefix, beside paths of directories."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from storage.errors import UrlError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https", "http", "file")


def is_local(url: str) -> bool:
    """Whether it is the path of a directory, or its file:// URL, rather than a URL of an object store."""
    return "://" not in url or url.startswith("file://")


def local_directory(url: str) -> Path:
    """The directory that it names."""
    return Path(urlsplit(url).path if "://" in url else url).expanduser()


def check_url(url: str) -> None:
    """Refuse URLs that hold secrets or that nothing here can read.

    Raises:
        UrlError: without repeating the URL, where it may hold a secret.
    """
    if "://" not in url:
        scheme, slash, rest = url.partition(":/")
        if slash and scheme in SCHEMES:
            raise UrlError(f"{url}: a URL has two slashes: {scheme}://{rest}")
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UrlError("no valid URL") from None
    container = parts.scheme in {"abfs", "abfss"} and parts.password is None
    if parts.query or parts.fragment or ("@" in parts.netloc and not container):
        raise UrlError(
            "a URL with a user name, a password or a query in it is refused, because the configuration is "
            f"stored and shown. Put the credentials into the environment ({credentials_of(url)})"
        )
    if parts.scheme not in SCHEMES:
        raise UrlError(f"{url}: URLs begin with {', '.join(f'{name}://' for name in SCHEMES)}")


def credentials_of(url: str) -> str:
    """The variables of the environment that hold the credentials of a kind of storage."""
    scheme = url.partition("://")[0]
    if scheme in {"s3", "s3a"}:
        return (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and where they apply AWS_SESSION_TOKEN, AWS_REGION and "
            "AWS_ENDPOINT_URL"
        )
    if scheme == "gs":
        return "GOOGLE_APPLICATION_CREDENTIALS"
    if scheme in {"az", "azure", "abfs", "abfss", "adl"}:
        return "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY"
    return "a web server's folder must be readable without credentials"
