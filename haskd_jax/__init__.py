"""3D semantic segmentation by heterogeneous and adept snapshot distillation, in JAX.

Importing this package imports nothing else: take the part you need, for example
`from haskd_jax import sparse` or `from haskd_jax import losses`.
"""

__version__ = "0.1.0"
