"""Addresses: a directory, or s3://bucket/prefix and its like."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from storage.errors import AddressError

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "https", "http", "file")


def is_folder(address: str) -> bool:
    """Whether an address is a directory rather than a place in an object store."""
    return "://" not in address or address.startswith("file://")


def folder_of(address: str) -> Path:
    """The directory that such an address names."""
    return Path(urlsplit(address).path if "://" in address else address).expanduser()


def check_address(address: str) -> None:
    """Refuse addresses that hold secrets or that nothing here can read.

    Raises:
        AddressError: without repeating the address, where it may hold a secret.
    """
    if "://" not in address:
        scheme, slash, rest = address.partition(":/")
        if slash and scheme in SCHEMES:
            raise AddressError(f"{address}: an address has two slashes: {scheme}://{rest}")
        return
    try:
        parts = urlsplit(address)
    except ValueError:
        raise AddressError("no valid address") from None
    container = parts.scheme in {"abfs", "abfss"} and parts.password is None
    if parts.query or parts.fragment or ("@" in parts.netloc and not container):
        raise AddressError(
            "an address with a user name, a password or a query in it is refused, because the configuration is "
            f"stored and shown. Put the credentials into the environment ({credentials_of(address)})"
        )
    if parts.scheme not in SCHEMES:
        raise AddressError(f"{address}: addresses begin with {', '.join(f'{name}://' for name in SCHEMES)}")


def credentials_of(address: str) -> str:
    """The variables of the environment that hold the credentials of a kind of storage."""
    scheme = address.partition("://")[0]
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
