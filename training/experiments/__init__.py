"""The paper's tables and figures as commands: which runs each takes, in which order, and what came out.

`config` reads what `workflows/experiments` says, `plan` turns it into jobs, `run` and `slurm` run them, and
`table` prints the results beside the paper's.
"""
