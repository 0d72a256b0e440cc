"""`python -m fleetbatch.runner --gateway URL --key FILE --signals file:PATH`: a car, until SIGTERM."""

import os
import sys
from collections.abc import Mapping
from typing import Final

ENVIRONMENT: Final[Mapping[str, str]] = {"ARROW_DEFAULT_MEMORY_POOL": "system", "PILLOW_BLOCK_SIZE": "256k"}
"""What libraries read when they are loaded, unless the process was told otherwise: all memory comes from one heap.

Arrow's own allocator kept 30 MB for tables of at most 10, and a picture in one piece finds no room in the holes that
others left.
"""

if __name__ == "__main__":
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    from fleetbatch.runner.process import main

    sys.exit(main())
