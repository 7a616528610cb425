#!/bin/sh
# What only a GPU can answer, in under ten minutes on one: a question a module of benchmarks/gpu/, each a section of one page.
# A question that fails or takes too long is said on the page, and the others are asked all the same.
#
#   sh benchmarks/gpu.sh                                            on a GPU, into benchmarks/results/gpu.md
#   DEVICE=cpu SIZE=small OUTPUT=gpu.md sh benchmarks/gpu.sh        a rehearsal, in two minutes of one core
#   python -m benchmarks.gpu.fused --device=cuda --size=full        one question alone
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
DEVICE=${DEVICE:-cuda}
SIZE=${SIZE:-full}
OUTPUT=${OUTPUT:-benchmarks/results/gpu.md}
SECONDS_EACH=${SECONDS_EACH:-115}

cd "$(dirname "$0")/.."
failed=0
"$PYTHON" -m benchmarks.gpu.head --device="$DEVICE" --size="$SIZE" > "$OUTPUT"
for question in fidelity encode overhead fused step; do
    code=0
    timeout "$SECONDS_EACH" "$PYTHON" -m "benchmarks.gpu.$question" --device="$DEVICE" --size="$SIZE" >> "$OUTPUT" || code=$?
    if [ "$code" -ne 0 ]; then
        failed=1
        printf '\n## %s\n\nNot answered: exit code %s (124: more than %s s).\n' "$question" "$code" "$SECONDS_EACH" >> "$OUTPUT"
    fi
done
cat "$OUTPUT"
exit "$failed"
