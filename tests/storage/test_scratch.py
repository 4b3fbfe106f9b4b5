"""What a killed process leaves in the temporary directory, the next one removes, and nothing of a running one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from storage.scratch import PREFIX, remove_abandoned

PROGRAM = """
import sys, time
from storage.scratch import scratch_folder
(scratch_folder() / "video.mp4").write_bytes(b"x")
print(scratch_folder(), flush=True)
if sys.argv[1] == "wait":
    time.sleep(100)
"""


def start(parent: Path, what: str) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what],
        env=os.environ | {"TMPDIR": str(parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_directory_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    killed, left = start(tmp_path, "wait")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (left / "video.mp4").is_file()
    running, held = start(tmp_path, "wait")
    try:
        assert not left.exists()
        assert remove_abandoned(tmp_path) == []
        assert (held / "video.mp4").is_file()
    finally:
        running.kill()
        running.wait()


def test_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    process, _ = start(tmp_path, "end")
    assert process.wait() == 0
    assert list(tmp_path.glob(f"{PREFIX}*")) == []
