"""Tables of runs that differ in one thing: result files, statistics over seeds, the table and its figure."""
