"""Confines this process for good, before it reads a byte of a video, and reports what the kernel enforces."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Literal

from pipeline.sandbox.landlock import restrict_to
from pipeline.sandbox.limits import drop_rights, keep_only, limit_resources
from pipeline.sandbox.seccomp import filter_system_calls

Mode = Literal["required", "best_effort"]
FULL_LANDLOCK = 6
"""The ABI from which files, TCP, abstract sockets and signals are all denied."""


@dataclass(frozen=True)
class Policy:
    """The limits of one decoding process."""

    memory_bytes: int
    cpu_s: float
    shared_bytes: int
    threads: bool = False
    """Whether it may start threads: decord does, PyAV does not."""


@dataclass(frozen=True)
class Enforced:
    """What the kernel enforces on a decoding process, beyond the limits that every Linux has."""

    landlock_abi: int
    """0: no Landlock. From 1: no file but the video. From 4: no TCP. From 6: no abstract sockets, no signals."""
    seccomp: bool
    """Whether system calls are filtered: no programs, processes, sockets, tracing, writing to files."""

    @property
    def missing(self) -> list[str]:
        """What this kernel cannot enforce, and what stays possible."""
        found: list[str] = []
        if not self.seccomp:
            found.append(
                "seccomp (system calls are not filtered: a decoder can start programs and use the network)"
            )
        if self.landlock_abi == 0:
            found.append("Landlock (a decoder can read every file that this user can read)")
        elif self.landlock_abi < FULL_LANDLOCK and not self.seccomp:
            found.append(f"Landlock ABI {FULL_LANDLOCK} (this kernel has {self.landlock_abi})")
        return found

    def describe(self) -> str:
        """One line for the log of a build."""
        parts = ["limits on memory, CPU time, files and processes", "no capabilities"]
        parts += ["seccomp filter"] * self.seccomp
        parts += [f"Landlock ABI {self.landlock_abi}"] * (self.landlock_abi > 0)
        line = f"Decoders run in a sandbox: {', '.join(parts)}."
        return line + "".join(f" Missing: {what}." for what in self.missing)

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return dataclasses.asdict(self)


def confine(policy: Policy, source_fd: int, descriptors: tuple[int, ...]) -> Enforced:
    """Give up everything but decoding the open file. There is no way back.

    Args:
        policy: the limits.
        source_fd: the video; the one file that may be opened.
        descriptors: what stays open beside standard input, output and error (which are /dev/null).
    """
    os.environ.clear()
    os.chdir("/")
    keep_only(descriptors)
    drop_rights()
    limit_resources(policy.memory_bytes, policy.cpu_s, policy.shared_bytes, policy.threads)
    abi = restrict_to(source_fd)
    return Enforced(landlock_abi=abi, seccomp=filter_system_calls(policy.threads))
