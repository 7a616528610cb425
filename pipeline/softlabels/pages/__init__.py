"""HTML pages on a store, on runs or on a plan: each one file that needs no server and no network."""
