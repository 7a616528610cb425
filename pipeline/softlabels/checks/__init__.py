"""Checks on arrays that every door asks; no disk, no models."""
