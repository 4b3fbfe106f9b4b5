"""Decoders run in a sandbox: a hostile video costs only its own row, and reaches only its own pixels.

A file from the web is untrusted, and files have taken over decoders, which are large C programs, before. So
only a process that has given up all other rights decodes videos. Networks run outside of it, in
the actor, on frames that were copied out of shared memory.

```
 actor ── SandboxedDecoder ──> fork server ──forks──> one confined process a video
   │        (client.py)        (zygote.py: imports,      (child.py: probe, decode)
   │                            touches no video)             │
   └── opens the file ── video.py <── messages, shared memory ─┘
       (source.py)                   (protocol.py, ring.py: no pickle, all of it checked)
```

What the kernel enforces on the process, before it reads the first byte (`confine.py`):

| what | by | also without privileges |
|---|---|---|
| no file but the video; no TCP, abstract sockets, signals to others | Landlock, as far as its ABI goes | yes |
| no programs, processes, sockets, tracing, namespaces, writing to files, new code | seccomp: an allow-list | yes |
| no threads (decord gets them) | seccomp, RLIMIT_NPROC | yes |
| private memory (`run.video_memory_gb`), CPU time, 64 descriptors, no writes, no core dumps | limits | yes |
| no capabilities, not even root's, and no new ones | capset, no_new_privs | yes |
| no descriptor but the video, its socket and the shared memory; no environment; directory / | close, clear | yes |
| it ends with its fork server, and that one with the build | parent-death signal, end of the socket | yes |

One capability stays where root builds: reading files of other users, to open the video again by its descriptor.
The build itself enforces wall-clock time, the kind of the file (a pipe, a device or a directory is rejected
before it is opened), the size of frames and of messages, and the type and range of every field.

What is not enforced:

- A kernel older than 5.13 or a container may lack Landlock; then seccomp still allows opening files for reading.
  `SandboxedDecoder.enforced` reports it, a build logs it once, and `run.sandbox=required` makes it an error. The
  default is `best_effort`: content that is read leaves the process only as pixels and text of this video's row.
- seccomp knows x86_64 and aarch64. Elsewhere it is reported as missing.
- A taken-over decoder still chooses the pixels, times and rejection of its own video.
- It may learn which paths exist (`stat` is allowed), and use the shared memory in full: 425 MB at 8K frames, which
  no limit on private memory counts.
- Bugs in the kernel's allowed calls, and side channels of the processor.

Both mechanisms are called directly (`landlock.py`, `seccomp.py`): Python bindings of Landlock are young, that of
libseccomp needs a library of the system, and either is a few dozen lines.
"""

from pipeline.sandbox.attempts import DecodeFailed
from pipeline.sandbox.client import SandboxedDecoder
from pipeline.sandbox.confine import Enforced

__all__ = ["DecodeFailed", "Enforced", "SandboxedDecoder"]
