"""The command line: parse, call one workflow, hand the value to the output sink."""
