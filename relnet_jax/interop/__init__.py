"""Weights in and models out."""
