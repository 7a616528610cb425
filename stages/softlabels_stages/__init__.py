"""The commands, thin: each parses its arguments, wires rooms of `softlabels` together, and prints."""
