"""What the commands do, for Python users too: settings and rows in, a store or a run out. No words are parsed."""
