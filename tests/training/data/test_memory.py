"""Memory stays where it is over epochs, whatever the number of threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import psutil, small_data
from training.config import Cache
from training.data.cache import SampleCache
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream

config = small_data.config(sys.argv[2], decode_threads=int(sys.argv[3]), prefetch=3)
cache = SampleCache(Cache(folder=Path(sys.argv[4]), max_gb=2e-3))
stream = IdentityStream(open_dataset(sys.argv[2], 1.0, cache), config, 64, rank=0, world_size=1)
resident = []
for epoch in range(100):
    for _ in range(6):
        next(stream)
    resident.append(psutil.Process().memory_info().rss)
stream.close()
print(json.dumps(resident))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 8])
def test_memory_stays_flat_over_epochs(threads: int, mfhq: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        MEASURE,
        str(Path(__file__).parent),
        str(mfhq),
        str(threads),
        str(tmp_path),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    resident = json.loads(done.stdout)
    # The allocator takes some epochs to settle. After that, 55 epochs read 250 MB more and decode 170 MB.
    settled, late = max(resident[30:45]), max(resident[-15:])
    assert late - settled < 6e6, [round(size / 1e6, 1) for size in resident]
