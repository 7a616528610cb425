"""Recipes, one runnable YAML file each; `--config NAME` finds them by name."""
