"""From the bytes of a video to sound frames.

| file | in short |
|---|---|
| `container.py` | opens a file with the demuxers and protocols of an allow-list |
| `probe.py` | demultiplexes the whole file: is it a video, is it whole, when is each frame shown |
| `bitstream.py` | bytes that no encoder writes |
| `damage.py` | which frames are corrupt, given which packets are damaged |
| `pyav_frames.py` | decodes with PyAV and watches every sign of damage |
| `decord_frames.py` | decodes with decord after a PyAV pass has found no damage |
| `frames.py` | chooses the decoder of a file; gives the planned frames as a player shows them |

Nothing here imports Ray, networks or settings: all of it runs in a confined process.
"""
