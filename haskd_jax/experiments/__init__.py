"""What can be run: `python -m haskd_jax.experiments.NAME`."""
