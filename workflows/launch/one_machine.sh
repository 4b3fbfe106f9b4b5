#!/usr/bin/env bash
# Train on this machine: one process for each of its GPUs, or one without a GPU.
#
#   workflows/launch/one_machine.sh workflows/train_mtd_small.yaml data.root=/data/mfhq output=/data/runs/small
#
#   NPROC                 number of processes instead
#   CUDA_VISIBLE_DEVICES  only these GPUs
#
# Ctrl-C and SIGTERM save and stop; the same command resumes.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z ${NPROC:-} ]]; then
    NPROC=1
    if nvidia-smi --list-gpus >/dev/null 2>&1; then NPROC=gpu; fi
fi
exec "$repository/workflows/launch/torchrun.sh" --standalone --nproc-per-node="$NPROC" \
    "$repository/training/train.py" "$@"
