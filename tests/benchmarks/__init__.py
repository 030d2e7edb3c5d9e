"""What is measured rather than tested: `make bench`, or one with `make bench BENCH=name`."""
