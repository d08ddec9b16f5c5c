"""Real servers on loopback, each ended with the process that started it: for demo, tests and benchmarks."""
