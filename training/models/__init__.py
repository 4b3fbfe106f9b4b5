"""The networks: the encoder and the decoders that teach it."""

import logging

# diffusers imports bitsandbytes where it is installed, which then logs warnings of kernels that are not used.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
