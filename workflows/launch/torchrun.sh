#!/usr/bin/env bash
# torchrun, started so that a request to stop reaches the trainer as one. The launchers beside this file use it:
#
#   workflows/launch/torchrun.sh TORCHRUN-OPTION... training/train.py WORKFLOW [SECTION.KEY=VALUE]...
#
# Asked by SIGTERM to stop, the trainer finishes its step, saves and exits 0. torchrun by itself would pass the
# signal on, kill whoever is not done after half a minute (a checkpoint may take longer), and exit 1 even so. It
# is therefore started deaf to SIGTERM, SIGINT and SIGHUP, and this script passes them to the trainer: exit code
# 0 means that all processes ended well. SIGQUIT (Ctrl-\) ends everything at once, without saving.
#
#   PYTHON         the interpreter (default: .venv/bin/python of this repository if there is one, else python)
#   FINISHED_WHEN  a path that exists once the run is finished: <output>/encoder/config.json, which both stages
#                  write last. When it is there already, nothing is started and the exit code is 0. When all ended
#                  well without it, the run was only stopped, and the exit code is 75, for schedulers that take 0
#                  for "done, never start it again".
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$repository/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python
fi

if [[ -n ${FINISHED_WHEN:-} && -e $FINISHED_WHEN ]]; then
    echo "the run is finished ($FINISHED_WHEN is there): nothing to do" >&2
    exit 0
fi

# Once asked, keep asking: a process that is only starting does not listen yet.
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
# A process group of its own for each job: Ctrl-C in a terminal goes to the foremost group, which is only this.
set -m
trap '[[ -n $asking ]] || { ask_to_stop & asking=$!; }' TERM INT HUP
trap 'kill -QUIT "$agent" 2>/dev/null || true' QUIT

(
    trap '' TERM INT HUP
    exec "$PYTHON" -m torch.distributed.run --signals-to-handle=SIGQUIT "$@"
) &
agent=$!

# A signal ends a wait early, even if the process has ended meanwhile; the status is that of one that comes after.
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
    echo "stopped before the end of the run ($FINISHED_WHEN is not there): exit code 75" >&2
    exit 75
fi
exit "$status"
