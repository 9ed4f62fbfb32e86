"""The measurements: `make bench` prints a table and writes bench/results.json, `make bench ONLY=ground` only one area's rows."""
