"""The sandbox on other machines: without privileges, and on kernels that lack a part of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

UNPRIVILEGED = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
READ_ANYTHING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
"""The interpreter may be where only root may look, as in root's home."""


def run(code: str, clip: Path, prefix: list[str]) -> str:
    """Run a program that uses the sandbox, and give the last line that it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), str(clip)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd="/")
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


DECODE = """
import os, sys
from pathlib import Path
import numpy as np
from pipeline.sandbox import SandboxedDecoder
decoder = SandboxedDecoder(mode=MODE)
with decoder.open(Path(sys.argv[1]), 100.0) as video:
    frames = len(list(video.frames(np.arange(video.probe().frames), "pyav")))
print(os.getuid(), frames, decoder.enforced.seccomp, decoder.enforced.landlock_abi > 0)
decoder.close()
"""

LACK = """
import ctypes, struct
from pipeline.sandbox.libc import prctl
def lack(*steps):
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("=HxxxxxxQ", len(steps), ctypes.addressof(buffer))
    held = ctypes.create_string_buffer(program, len(program))
    prctl(38, 1)
    prctl(22, 2, ctypes.cast(held, ctypes.c_void_p))
LOAD, EQUAL, RETURN, ALLOW, ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
"""
NO_LANDLOCK = """
lack((LOAD, 0, 0, 0), (EQUAL, 0, 1, 444), (RETURN, 0, 0, ERROR | 38), (RETURN, 0, 0, ALLOW))
"""
NO_SECCOMP = """
from pipeline.sandbox.syscalls import numbers
import platform
PRCTL = {"x86_64": 157, "aarch64": 167}[platform.machine()]
lack(
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, PRCTL), (LOAD, 0, 0, 16), (EQUAL, 0, 1, 22),
    (RETURN, 0, 0, ERROR | 22), (RETURN, 0, 0, ALLOW),
)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run without privileges already")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_all_of_it_is_enforced_without_privileges(clip: Path) -> None:
    for folder in [clip, *clip.parents]:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):  # noqa: S108
            folder.chmod(0o755)
    printed = run(DECODE.replace("MODE", "'required'"), clip, [*UNPRIVILEGED, *READ_ANYTHING])
    assert printed == "65534 30 True True"


def test_without_landlock_the_rest_is_enforced_or_nothing_starts(clip: Path) -> None:
    best_effort = run(LACK + NO_LANDLOCK + DECODE.replace("MODE", "'best_effort'"), clip, [])
    assert best_effort == f"{os.getuid()} 30 True False"
    required = run(LACK + NO_LANDLOCK + DECODE.replace("MODE", "'required'"), clip, [])
    assert required == (
        "RuntimeError: run.sandbox=required, but this machine lacks Landlock (a decoder can read every file that "
        "this user can read). Use a newer kernel, or run.sandbox=best_effort to decode with what there is"
    )


def test_without_seccomp_the_rest_is_enforced_or_nothing_starts(clip: Path) -> None:
    best_effort = run(LACK + NO_SECCOMP + DECODE.replace("MODE", "'best_effort'"), clip, [])
    assert best_effort == f"{os.getuid()} 30 False True"
    required = run(LACK + NO_SECCOMP + DECODE.replace("MODE", "'required'"), clip, [])
    assert required.startswith("RuntimeError: run.sandbox=required, but this machine lacks seccomp")
