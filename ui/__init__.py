"""What a person touches: the command line.  It draws and starts runs, and decides nothing."""
