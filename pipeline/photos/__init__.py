"""Makes a dataset of photographs of people, one directory a person, in the format of `shards`: `mfhq photos`.

A person's directory stands where a video would: it has one row in the videos table, and the place of a photograph
among the directory's by name is its frame. Faces are found, measured, cut out and masked by the code that does it
for videos. No one chooses by pose: what a photograph shows does not depend on the one before it.

```
 driver                                        a worker process for each CPU
 listing.py   people and their photographs       task.py      takes one person at a time
 split.py     who is held out                    read.py      bytes of a photograph
 dataset.py   shards, tables, dataset.json       decoder.py   pixels, by a confined process (child.py)
 outcomes.py  one line for each photograph       analyse.py   faces; subject.py: whose; identities.py: eights
       ^                                               │
       └────────── staged.py: one file a person ───────┘
```

Photographs from the web are untrusted. Only a process that has given up all rights but decoding parses them, in
the sandbox that also confines the decoders of videos (`pipeline.sandbox`); it decodes photographs of one person.
"""
