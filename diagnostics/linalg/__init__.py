"""Numerical linear algebra: one method a file, named as in the papers."""
