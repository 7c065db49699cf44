"""What clustering a pool costs: 500 000 vectors of width 384 into 1000 clusters, by backend.

    OMP_NUM_THREADS=2 python -m benchmarks.clustering

Vectors scatter around three times as many random directions as there are clusters.  Every backend
runs in a process of its own; `seconds` is all of `selection.cluster`, the final assignment
included, `cpu_seconds` what it took of all cores, and `peak_mib` the resident memory above that
of the vectors.
Shapes: N rows, D width.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.measure import record
from workbench.selection import cluster
from workbench.selection.clustering import BACKENDS

CHUNK_ROWS = 10_000
SCATTER = 1.0
"""Length of the noise relative to the direction it is added to."""


def vectors(rows: int, width: int, directions: int) -> np.ndarray:
    """Unit vectors around random directions, float32 (N, D)."""
    rng = np.random.default_rng(0)
    centre_CD = rng.standard_normal((directions, width), dtype=np.float32)
    vector_ND = np.empty((rows, width), dtype=np.float32)
    for first in range(0, rows, CHUNK_ROWS):
        part = vector_ND[first : first + CHUNK_ROWS]
        part[:] = centre_CD[rng.integers(0, directions, len(part))]
        part += SCATTER * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vector_ND


def measure(backend: str, rows: int, width: int, clusters: int) -> dict[str, Any]:
    """Time, memory and quality of one backend, in this process."""
    embedding_ND = vectors(rows, width, 3 * clusters)
    # Loads the package and its threads, so that neither counts.
    cluster(embedding_ND[:1000], clusters=10, backend=backend)
    before_mib = _peak_resident_mib()
    began, cpu_began = time.perf_counter(), time.process_time()
    found = cluster(embedding_ND, clusters=clusters, backend=backend)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu_began, 2),
        "peak_mib": round(_peak_resident_mib() - before_mib),
        "clusters": len(found),
        "mean_distance": round(float(found.distance_N.mean()), 4),
        "rows_of_a_cluster": np.quantile(found.rows_C, [0, 0.5, 1]).astype(int).tolist(),
    }


def _peak_resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--only", choices=list(BACKENDS), help="print one backend's numbers")
    options = parser.parse_args()
    size = (options.rows, options.width, options.clusters)
    if options.only:
        print(json.dumps(measure(options.only, *size)))
        return
    shape = {"rows": options.rows, "width": options.width, "clusters": options.clusters}
    arguments = [f"--{name}={value}" for name, value in shape.items()]
    results = {}
    for backend in BACKENDS:
        command = [sys.executable, "-m", "benchmarks.clustering", f"--only={backend}", *arguments]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[backend] = json.loads(printed.splitlines()[-1])
        print(f"{backend:10} {results[backend]}")
    command = " ".join(["python -m benchmarks.clustering", *arguments])
    print("written:", record("clustering", {**shape, "backends": results}, command=command).name)


if __name__ == "__main__":
    main()
