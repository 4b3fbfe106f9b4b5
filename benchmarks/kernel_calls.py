"""How often does a build call its networks? What a workflow costs, before it runs on a cluster.

    python benchmarks/kernel_calls.py CLIPS [KEY=VALUE ...] [--workflow workflows/curate_paper.yaml]

Curates each clip in this process with the networks of a workflow, and prints the calls by kernel: detections,
landmarks, embeddings, and images scored. With TOPIQ on CPUs the last are nearly all of the cost.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from curation import WORKFLOW, Curation
from kernel_times import KernelTimes


def main() -> int:
    """Curate, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the workflow, such as run.models_dir=/data/models")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW)
    parser.add_argument("--only", nargs="*", help="names of clips; all when left out")
    options = parser.parse_args()

    curation = Curation(options.clips, *options.overrides, workflow=options.workflow)
    kernels = KernelTimes(curation)
    rows: list[dict[str, int]] = []
    for path in sorted(options.clips.iterdir()):
        if path.suffix == ".tsv" or (options.only and path.name not in options.only):
            continue
        kernels.taken()
        outcome = curation.curate(path).finalized.outcome
        calls, seconds = kernels.taken()
        if outcome.identities:
            rows.append(calls)
            listed = "  ".join(f"{name} {count:>4}" for name, count in calls.items())
            print(
                f"{path.name:<36} {outcome.analysed_frames:>4} of {outcome.frames:>5} frames  {listed}  "
                f"{seconds:7.1f} s",
                flush=True,
            )
    if rows:
        medians = "  ".join(f"{name} {statistics.median(row[name] for row in rows):g}" for name in rows[0])
        print(f"median of {len(rows)} clips that give an identity: {medians}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
