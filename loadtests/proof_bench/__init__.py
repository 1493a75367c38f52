"""The parts of `loadtests.bench_proof`."""
