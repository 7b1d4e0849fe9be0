"""Rows by index, in the portable implementation."""


def gather(features, rows, fill=0):
    """`features[rows]`, `fill` where a row is negative or past the end."""
    return features.at[rows].get(mode="fill", fill_value=fill, wrap_negative_indices=False)
