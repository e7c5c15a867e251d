"""graphkit held against its peers, side by side on one machine; `python -m benchmarks` rewrites RESULTS.md."""
