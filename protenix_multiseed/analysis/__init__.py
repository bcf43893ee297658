"""Compare all samples of a job: interfaces, agreement, clusters, convergence. Input is arrays, output is numbers."""
