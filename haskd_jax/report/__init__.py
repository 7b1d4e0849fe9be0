"""What people look at: the report, pictures of clouds, the viewer. NumPy only, no JAX."""

from haskd_jax.report.html import write_report
from haskd_jax.report.statistics import PairedDifference, paired_differences, read_results

__all__ = ["PairedDifference", "paired_differences", "read_results", "write_report"]
