#!/usr/bin/env bash
# Submit a build to a Ray cluster, as a job that continues when this terminal is closed:
#
#   export RAY_API_SERVER_ADDRESS=http://HEAD:8265    # and RAY_AUTH_TOKEN, where the cluster asks for one
#   workflows/curate/submit.sh workflows/curate_paper.yaml source.path=… output=… run.models_dir=… --dry-run
#   workflows/curate/submit.sh workflows/curate_paper.yaml source.path=… output=… run.models_dir=…
#
# Options before the workflow are those of `ray job submit`. For nodes that have only Ray:
#
#   workflows/curate/submit.sh --runtime-env=workflows/curate/runtime_env.yaml workflows/curate_paper.yaml …
#
# .rayignore lists what is uploaded. Paths of data are those of the nodes. The same command again continues a build
# that failed. RAY is the command to submit with (default: that of .venv, else `ray`).
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repository"
if [[ -z ${RAY:-} ]]; then
    RAY=$repository/.venv/bin/ray
    [[ -x $RAY ]] || RAY=ray
fi
options=()
while [[ ${1:-} == --* ]]; do
    options+=("$1")
    shift
done
if (($# == 0)); then
    echo "usage: $0 [OPTION OF RAY JOB SUBMIT]... WORKFLOW [SECTION.KEY=VALUE]... [OPTION OF MFHQ BUILD]..." >&2
    exit 2
fi
exec "$RAY" job submit --working-dir=. "${options[@]}" -- python pipeline/build_mfhq.py "$@"
