"""One thread for each process where test files run side by side, so that they do not contend for the cores.

Frameworks read these when they are loaded, so this stands before any test module imports them. What a user set counts.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(_name, "1")
