"""The commands, thin: each parses its arguments, wires rooms of `pipeline` together, and prints."""
