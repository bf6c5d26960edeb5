"""Runs out to other formats and in from other programs."""
