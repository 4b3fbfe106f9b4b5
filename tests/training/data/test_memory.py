"""Memory stays where it is over epochs, whatever the number of threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

EPOCHS, BATCHES = 100, 6
MEASURE = """
import array, gc, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import psutil, small_data
from training.config import Cache
from training.data.cache import SampleCache
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream

epochs, batches = int(sys.argv[5]), int(sys.argv[6])
config = small_data.config(sys.argv[2], decode_threads=int(sys.argv[3]), prefetch=3)
cache = SampleCache(Cache(folder=Path(sys.argv[4]), max_gb=2e-3))
stream = IdentityStream(open_dataset(sys.argv[2], 1.0, cache), config, small_data.MTD, rank=0, world_size=1)
process = psutil.Process()
resident, blocks = array.array("q", [0] * epochs), array.array("q", [0] * epochs)
for epoch in range(epochs):
    for _ in range(batches):
        next(stream)
    if epoch == 0:
        gc.freeze()  # what libraries hold is not looked through again
    gc.collect()
    resident[epoch], blocks[epoch] = process.memory_info().rss, sys.getallocatedblocks()
stream.close()
print(json.dumps([list(resident), list(blocks)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_memory_stays_flat_over_epochs(threads: int, mfhq: Path, tmp_path: Path) -> None:
    """The process's memory shows what is large, Python's count of its blocks what is small."""
    own = str(Path(__file__).parent)
    arguments = [own, mfhq, threads, tmp_path, EPOCHS, BATCHES]
    command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    resident, blocks = json.loads(done.stdout)
    # The allocator takes some epochs to settle. After that, 55 epochs read 250 MB more and decode 170 MB.
    grown = max(resident[-15:]) - max(resident[30:45])
    assert grown < 6e6, [round(size / 1e6, 1) for size in resident]
    # As many as if a single object were kept of every batch; of every sample, it would be twice as many.
    kept = median(blocks[-15:]) - median(blocks[30:45])
    assert kept < (EPOCHS - 45) * BATCHES, blocks
