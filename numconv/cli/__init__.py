"""The command line, one file a command; `python -m numconv` lists them. What they draw with is an extra."""
