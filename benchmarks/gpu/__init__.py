"""What only a GPU can answer: a question a module; `benchmarks/gpu.sh` asks them all."""
