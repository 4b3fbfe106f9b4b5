"""How long does the report take, how large is its page, and how much memory does it need, with more identities?

    python benchmarks/report.py [--identities 8000 33000 134077] [--folder DIR]

Makes a dataset of each size, with half as many videos again that gave nothing, and writes its report in a process
of its own. Tables are at full size; shards contain the samples that are shown (see `wide_dataset.py`). Printed:

| column | what |
|---|---|
| read | seconds to read the tables once, in batches: no report can be faster |
| report | seconds to write the report |
| page | its size |
| RSS | highest resident memory of the process: with its libraries alone, and in the end |

The limits are those that the project asks for: a page of MOST_PAGE_MB, and memory that does not grow with the
dataset (less than GROWTH_MB from the first size to the last). The counts on the page are checked too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wide_dataset import WideDataset

MOST_PAGE_MB = 20.0
GROWTH_MB = 64.0

MEASURED = """
import json, sys, time
from pathlib import Path
import cv2, jinja2, plotly.graph_objects, plotly.offline, plotly.subplots, pyarrow.parquet
import pipeline.report.content, pipeline.report.drawing, pipeline.report.page
from pipeline.report.build import write_report
def peak():  # not ru_maxrss, which starts with the memory of the process that started this one
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
before = peak()
start = time.perf_counter()
page = write_report(Path(sys.argv[1]))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "bytes": page.stat().st_size, "before": before, "peak": peak()}))
"""

READ = """
import sys, time
from pathlib import Path
from pipeline.report import image_counts, video_counts
from shards.layout import IMAGES, VIDEOS
from shards.streamed import StreamedDataset
dataset = StreamedDataset.open(Path(sys.argv[1]))
start = time.perf_counter()
for role, columns in ((IMAGES, image_counts.COLUMNS), (VIDEOS, video_counts.COLUMNS)):
    for batch in dataset.batches(role, columns):
        pass
print(time.perf_counter() - start)
"""


def main() -> int:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identities", type=int, nargs="+", default=[8_000, 33_000, 134_077])
    parser.add_argument(
        "--folder", type=Path, help="for the datasets; the system's temporary one if not given"
    )
    options = parser.parse_args()

    print(f"limits: page {MOST_PAGE_MB:g} MB, growth of the memory {GROWTH_MB:g} MB")
    print(
        "identities  videos  made, s  read, s  report, s  report / read  page, MB  RSS, MB: libraries  peak"
    )
    peaks, sound = [], True
    for count in options.identities:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            root = Path(folder) / "mfhq"
            start = time.perf_counter()
            metadata = WideDataset(count).write(root)
            made = time.perf_counter() - start
            read = float(run(READ, root))
            measured = json.loads(run(MEASURED, root))
            page = (root / "report" / "index.html").read_text(encoding="utf-8")
            shown = (f'id="key-identities">{count:,}<', f'id="key-persons">{metadata.counts.persons:,}<')
            sound &= all(text in page for text in shown) and "could not be read" not in page
        videos = sum(metadata.counts.videos.values())
        size, seconds = measured["bytes"] / 1e6, measured["seconds"]
        print(
            f"{count:10,}  {videos:6,}  {made:7.1f}  {read:7.2f}  {seconds:9.1f}  {seconds / read:13.1f}  "
            f"{size:8.2f}  {measured['before']:18.0f}  {measured['peak']:4.0f}",
            flush=True,
        )
        peaks.append(measured["peak"])
        sound &= size <= MOST_PAGE_MB
    growth = peaks[-1] - peaks[0]
    print(f"memory grows by {growth:.0f} MB from {options.identities[0]:,} to {options.identities[-1]:,}")
    sound &= growth < GROWTH_MB
    print("all limits are met" if sound else "A LIMIT IS NOT MET, or the page shows other counts")
    return 0 if sound else 1


def run(code: str, root: Path) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
