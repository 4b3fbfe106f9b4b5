#!/usr/bin/env bash
# Start torchrun so that SIGTERM stops the trainer cleanly. The launchers in this directory use it:
#
#   workflows/launch/torchrun.sh TORCHRUN-OPTION... training/train.py WORKFLOW [SECTION.KEY=VALUE]...
#
# On SIGTERM, the trainer finishes its step, saves and exits 0. torchrun by itself would forward the signal, kill the
# trainer after half a minute (a checkpoint may take longer), and exit 1. So torchrun ignores SIGTERM, SIGINT and
# SIGHUP, and this script forwards them to the trainer: exit code 0 means that all processes exited 0. SIGQUIT (Ctrl-\)
# ends everything at once, without saving.
#
#   PYTHON         the interpreter (default: .venv/bin/python of this repository if there is one, else python)
#   FINISHED_WHEN  a path that exists once the run is finished: <output>/encoder/config.json, which both stages
#                  write last. When it exists at the start, nothing runs and the exit code is 0. When all processes
#                  exited 0 without it, the run was stopped, and the exit code is 75, for schedulers that do not
#                  restart a job that exited 0.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$repository/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python
fi

if [[ -n ${FINISHED_WHEN:-} && -e $FINISHED_WHEN ]]; then
    echo "the run is finished ($FINISHED_WHEN exists): nothing to do" >&2
    exit 0
fi

# Repeat the signal: a process that is still starting has no handler yet.
# shellcheck disable=SC2329 # called by the trap
ask_to_stop() {
    trap '' TERM INT HUP # some schedulers signal every process, and more than once
    while kill -0 "$agent" 2>/dev/null; do
        read -r -a trainers <"/proc/$agent/task/$agent/children" || true
        ((${#trainers[@]} == 0)) || kill -TERM "${trainers[@]}" 2>/dev/null || true
        sleep 2
    done
}
asking=
# A separate process group for each job: Ctrl-C in a terminal reaches only the foreground group, this script.
set -m
trap '[[ -n $asking ]] || { ask_to_stop & asking=$!; }' TERM INT HUP
trap 'kill -QUIT "$agent" 2>/dev/null || true' QUIT

(
    trap '' TERM INT HUP
    exec "$PYTHON" -m torch.distributed.run --signals-to-handle=SIGQUIT "$@"
) &
agent=$!

# A signal interrupts `wait`; the last `wait` gives the exit status.
while kill -0 "$agent" 2>/dev/null; do wait "$agent" || true; done
status=0
wait "$agent" || status=$?
if [[ -n $asking ]]; then
    kill -KILL "$asking" 2>/dev/null || true
    wait "$asking" 2>/dev/null || true
fi

if ((status == 0)) && [[ -n ${FINISHED_WHEN:-} ]]; then
    # Another machine wrote it; a shared file system may show it late.
    for _ in {1..30}; do
        [[ ! -e $FINISHED_WHEN ]] || exit 0
        sleep "${FINISHED_POLL_S:-2}"
    done
    echo "stopped before the end of the run ($FINISHED_WHEN does not exist): exit code 75" >&2
    exit 75
fi
exit "$status"
